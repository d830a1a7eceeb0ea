#include "bitplan/models/tap.h"

#include <exception>
#include <unordered_map>
#include <utility>

#include "models/operation_matcher.h"

namespace bitplan {

struct Tap::State {
  State(const Network& network, const torch::jit::Module& module, TapHandlers tap_handlers)
      : handlers(std::move(tap_handlers)) {
    for (std::size_t i = 0; i < network.layers.size(); ++i) {
      weights.push_back(GetTensor(module, network.layers[i].parameter));
      layers[weights.back().data_ptr()] = i;
    }
    for (std::size_t i = 0; i < network.batch_norms.size(); ++i) {
      means.push_back(GetTensor(module, network.batch_norms[i].running_mean));
      batch_norms[means.back().data_ptr()] = i;
    }
  }

  bool Enter(std::string_view operation, Operands operands) {
    if (const auto form = FormOf(operation, operands)) {
      const torch::Tensor& weight = operands[form->weight].toTensor();
      const auto found = layers.find(weight.data_ptr());
      if (found == layers.end() || !OutputDim(*form, weight, weights[found->second])) return false;
      layer = found->second;
      batch_norm.reset();
      if (handlers.on_layer_input) handlers.on_layer_input(found->second, operands[form->input].toTensor());
      return true;
    }
    if (const auto form = BatchNormOf(operation, operands); form && (handlers.on_batch_norm_input || handlers.on_batch_norm_output)) {
      const auto found = batch_norms.find(operands[form->running_mean].toTensor().data_ptr());
      if (found == batch_norms.end() || operands[form->training].toBool()) return false;
      layer.reset();
      batch_norm = Running{found->second, operands[form->input].toTensor(), operands[form->eps].toDouble()};
      if (handlers.on_batch_norm_input) handlers.on_batch_norm_input(found->second, batch_norm->input);
      return true;
    }
    return false;
  }

  void Leave(Operands outputs) {
    if (!outputs.empty() && layer && handlers.on_layer_output) handlers.on_layer_output(*layer, outputs[0].toTensor());
    if (!outputs.empty() && batch_norm && handlers.on_batch_norm_output) {
      handlers.on_batch_norm_output(batch_norm->index, batch_norm->input, outputs[0].toTensor(), batch_norm->eps);
    }
    batch_norm.reset();
  }

  struct Running {
    std::size_t index;
    torch::Tensor input;
    double eps;
  };

  TapHandlers handlers;
  std::vector<torch::Tensor> weights, means;  // keep their addresses from being given to other tensors
  std::unordered_map<const void*, std::size_t> layers, batch_norms;
  std::optional<std::size_t> layer;  // the one that runs
  std::optional<Running> batch_norm;
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
