#include "bitplan/models/tap.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "models/operation_matcher.h"

namespace bitplan {
namespace {

constexpr std::string_view kBetween[] = {
    "aten::add",        "aten::add_",       "aten::relu",       "aten::relu_",      "aten::relu6",
    "aten::relu6_",     "aten::hardtanh",   "aten::hardtanh_",  "aten::leaky_relu", "aten::leaky_relu_",
    "aten::elu",        "aten::elu_",       "aten::gelu",       "aten::silu",       "aten::silu_",
    "aten::hardswish",  "aten::hardswish_", "aten::sigmoid",    "aten::tanh",       "aten::pad",
    "aten::mul",        "aten::mul_",       "aten::max_pool2d", "aten::avg_pool2d", "aten::cat",
    "aten::layer_norm", "aten::group_norm", "aten::dropout",    "aten::dropout_",   "aten::constant_pad_nd",
    "aten::zero_pad2d"};

bool IsBetween(std::string_view operation) {
  return std::find(std::begin(kBetween), std::end(kBetween), operation) != std::end(kBetween);
}

// a + b, both whole tensors of one shape.
bool IsPlainSum(std::string_view operation, Operands operands) {
  return (operation == "aten::add" || operation == "aten::add_") && operands.size() == 3 && operands[0].isTensor() &&
         operands[1].isTensor() && operands[2].isScalar() && operands[2].toScalar().toDouble() == 1.0 &&
         operands[0].toTensor().sizes() == operands[1].toTensor().sizes();
}

}  // namespace

struct Tap::State {
  State(const Network& network, const torch::jit::Module& module, TapHandlers tap_handlers)
      : handlers(std::move(tap_handlers)) {
    for (std::size_t i = 0; i < network.layers.size(); ++i) {
      weights.push_back(GetTensor(module, network.layers[i].parameter));
      layers.emplace(StorageOf(weights.back()), i);
    }
    for (std::size_t i = 0; i < network.batch_norms.size(); ++i) {
      means.push_back(GetTensor(module, network.batch_norms[i].running_mean));
      batch_norms[means.back().data_ptr()] = i;
    }
  }

  bool Enter(std::string_view operation, Operands operands) {
    if (const auto form = FormOf(operation, operands)) {
      const auto found = Find(*form, operands[form->weight].toTensor());
      if (!found) return false;
      Begin();
      running = {*found};
      if (handlers.on_layer_input) handlers.on_layer_input(*found, operands[form->input].toTensor());
      return true;
    }
    if (const auto form = RecurrentOf(operation, operands)) {
      Begin();
      for (const RecurrentWeight& weight : form->weights) {
        if (const auto found = Find({form->kind, 0, 0, std::nullopt, 0}, weight.weight)) running.push_back(*found);
      }
      if (running.empty()) return false;
      every_output = true;
      for (const std::size_t layer : running) {
        if (handlers.on_layer_input) handlers.on_layer_input(layer, form->input);
      }
      return true;
    }
    if (const auto form = BatchNormOf(operation, operands);
        form && (handlers.on_batch_norm_input || handlers.on_batch_norm_output)) {
      const auto found = batch_norms.find(operands[form->running_mean].toTensor().data_ptr());
      if (found == batch_norms.end() || operands[form->training].toBool()) return false;
      Begin();
      batch_norm = Running{found->second, operands[form->input].toTensor(), operands[form->eps].toDouble()};
      if (handlers.on_batch_norm_input) handlers.on_batch_norm_input(found->second, batch_norm->input);
      return true;
    }
    if ((handlers.on_between || handlers.on_sum) && IsBetween(operation)) {
      Begin();
      between = ordinals++;
      if (handlers.on_sum && IsPlainSum(operation, operands)) {
        handlers.on_sum(operands[0].toTensor(), operands[1].toTensor());
      }
      return true;
    }
    return false;
  }

  static const void* StorageOf(const torch::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

  // The layer that an operation multiplies by, or by a part of its weight.
  [[nodiscard]] std::optional<std::size_t> Find(const LayerForm& form, const torch::Tensor& weight) const {
    if (!weight.has_storage()) return std::nullopt;
    const auto [begin, end] = layers.equal_range(StorageOf(weight));
    for (auto entry = begin; entry != end; ++entry) {
      if (OutputDim(form, weight, weights[entry->second])) return entry->second;
    }
    return std::nullopt;
  }

  void Begin() {
    running.clear();
    every_output = false;
    batch_norm.reset();
    between.reset();
  }

  void Leave(Operands outputs) {
    if (handlers.on_layer_output) {
      for (const std::size_t layer : running) {
        for (std::size_t i = 0; i < (every_output ? outputs.size() : std::min<std::size_t>(outputs.size(), 1)); ++i) {
          handlers.on_layer_output(layer, outputs[i].toTensor());
        }
      }
    }
    if (!outputs.empty() && batch_norm && handlers.on_batch_norm_output) {
      handlers.on_batch_norm_output(batch_norm->index, batch_norm->input, outputs[0].toTensor(), batch_norm->eps);
    }
    if (!outputs.empty() && between && handlers.on_between) handlers.on_between(*between, outputs[0].toTensor());
    Begin();
  }

  struct Running {
    std::size_t index;
    torch::Tensor input;
    double eps;
  };

  TapHandlers handlers;
  std::vector<torch::Tensor> weights, means;                 // keep their addresses from being given to other tensors
  std::unordered_multimap<const void*, std::size_t> layers;  // by storage
  std::unordered_map<const void*, std::size_t> batch_norms;
  std::vector<std::size_t> running;  // the layers of the operation that runs
  bool every_output = false;         // of it is one of the layers'
  std::optional<Running> batch_norm;
  std::optional<std::size_t> between;
  std::size_t ordinals = 0;
  int exceptions_before = std::uncaught_exceptions();
  OperationObserver observer{[this](auto operation, auto operands) { return Enter(operation, operands); },
                             [this](Operands outputs) { Leave(outputs); }};
};

Tap::Tap(const Network& network, const torch::jit::Module& module, TapHandlers handlers)
    : state_(std::make_unique<State>(network, module, std::move(handlers))) {}

Tap::~Tap() noexcept(false) {
  if (std::uncaught_exceptions() == state_->exceptions_before) state_->observer.Rethrow();
}

}  // namespace bitplan
