#include "models/equalizable.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "models/operation_matcher.h"
#include "models/stored_tensors.h"

namespace bitplan {
namespace {

bool KeepsFactors(std::string_view operation) {
  static const std::set<std::string_view> kinds = {"aten::relu",
                                                   "aten::relu_",
                                                   "aten::leaky_relu",
                                                   "aten::leaky_relu_",
                                                   "aten::max_pool1d",
                                                   "aten::max_pool2d",
                                                   "aten::max_pool3d",
                                                   "aten::avg_pool1d",
                                                   "aten::avg_pool2d",
                                                   "aten::avg_pool3d",
                                                   "aten::adaptive_avg_pool1d",
                                                   "aten::adaptive_avg_pool2d",
                                                   "aten::dropout",
                                                   "aten::dropout_",
                                                   "aten::feature_dropout",
                                                   "aten::adaptive_max_pool2d",
                                                   "aten::flatten",
                                                   "aten::view",
                                                   "aten::reshape",
                                                   "aten::contiguous",
                                                   "aten::mean"};
  return kinds.contains(operation);
}

struct MakerPlaces {
  std::size_t weight, bias;
};

std::optional<MakerPlaces> PlacesOfMaker(std::string_view operation) {
  static const std::map<std::string_view, MakerPlaces> known = {
      {"aten::batch_norm", {1, 2}}, {"aten::layer_norm", {2, 3}},   {"aten::conv1d", {1, 2}}, {"aten::conv2d", {1, 2}},
      {"aten::conv3d", {1, 2}},     {"aten::_convolution", {1, 2}}, {"aten::linear", {1, 2}}};
  const auto found = known.find(operation);
  if (found == known.end()) return std::nullopt;
  return found->second;
}

// Everything that ran, and what it read and made: numbers of contents, where another write makes another content.
class PassRecorder {
 public:
  PassRecorder(const Network& network, const torch::jit::Module& module) : network_(network) {
    for (const auto& parameter : module.named_parameters()) {
      names_.try_emplace(parameter.value.data_ptr(), parameter.name);
    }
    for (std::size_t l = 0; l < network.layers.size(); ++l) {
      layers_[GetTensor(module, network.layers[l].parameter).data_ptr()] = l;
    }
  }

  bool Enter(std::string_view operation, Operands operands) {
    Event event;
    event.operation = operation;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      ForEachTensor(operands[i], "", [&](const std::string&, const torch::Tensor& tensor) {
        if (!tensor.defined() || tensor.numel() == 0) return;
        const auto name = names_.find(tensor.data_ptr());
        if (name != names_.end()) {
          ++uses_[name->second];
        } else {
          event.reads.push_back(ContentOf(tensor));
          if (i == 0) event.first = event.reads.back();
        }
      });
    }
    if (const auto form = FormOf(operation, operands)) {
      const auto layer = layers_.find(operands[form->weight].toTensor().data_ptr());
      if (layer != layers_.end()) event.layer = layer->second;
    }
    if (const auto places = PlacesOfMaker(operation); places && places->bias < operands.size()) {
      event.weight = NameOf(operands[places->weight]);
      event.has_bias = operands[places->bias].isTensor() && operands[places->bias].toTensor().defined();
      if (event.has_bias) event.bias = NameOf(operands[places->bias]);
    }
    events_.push_back(std::move(event));
    return true;
  }

  void Leave(Operands outputs) {
    for (const c10::IValue& output : outputs) {
      ForEachTensor(output, "", [&](const std::string&, const torch::Tensor& tensor) {
        if (tensor.defined() && tensor.numel() > 0) made_by_[ContentOf(tensor)] = events_.size() - 1;
      });
    }
  }

  void End(const torch::Tensor& answer) { answer_ = ContentOf(answer); }

  [[nodiscard]] std::vector<Equalizable> Found() const {
    std::map<std::size_t, std::vector<std::size_t>> readers;  // of a content, events
    for (std::size_t e = 0; e < events_.size(); ++e) {
      for (const std::size_t content : events_[e].reads) readers[content].push_back(e);
    }
    std::vector<Equalizable> found;
    for (const auto& [content, events] : readers) {
      if (content == answer_) continue;
      const bool only_layers = std::all_of(events.begin(), events.end(), [&, content = content](std::size_t e) {
        const Event& event = events_[e];
        return event.layer && event.first == content && event.reads.size() == 1 && Scales(*event.layer);
      });
      if (!only_layers) continue;
      const auto maker = MakerOf(content, readers);
      if (!maker || !UsedOnce(maker->weight)) continue;
      if (maker->has_bias && !UsedOnce(maker->bias)) continue;
      if (maker->layer && network_.layers[*maker->layer].output_dim != 0) continue;  // x @ W, a transposed convolution
      Equalizable& tensor = found.emplace_back(Equalizable{maker->weight, maker->bias, {}});
      for (const std::size_t e : events) tensor.readers.push_back(*events_[e].layer);
    }
    std::sort(found.begin(), found.end(),
              [](const Equalizable& a, const Equalizable& b) { return a.readers.front() < b.readers.front(); });
    return found;
  }

 private:
  struct Event {
    std::string operation;
    std::vector<std::size_t> reads;
    std::optional<std::size_t> first;  // of the first operand
    std::optional<std::size_t> layer;
    std::string weight, bias;
    bool has_bias = false;
  };

  std::size_t ContentOf(const torch::Tensor& tensor) {
    kept_.push_back(tensor);  // so that no other tensor gets its place
    const auto key = std::pair{static_cast<const void*>(tensor.unsafeGetTensorImpl()), tensor._version()};
    return contents_.try_emplace(key, contents_.size()).first->second;
  }

  [[nodiscard]] std::string NameOf(const c10::IValue& operand) const {
    if (!operand.isTensor() || !operand.toTensor().defined()) return "";
    const auto found = names_.find(operand.toTensor().data_ptr());
    return found == names_.end() ? "" : found->second;
  }

  [[nodiscard]] bool Scales(std::size_t index) const {
    const Layer& layer = network_.layers[index];
    return layer.uses == 1 && layer.puts_out_products() && layer.rounds_input();
  }

  [[nodiscard]] bool UsedOnce(const std::string& name) const {
    const auto found = uses_.find(name);
    return found != uses_.end() && found->second == 1;
  }

  // Who makes a content, behind what keeps factors and is read by nobody else.
  [[nodiscard]] const Event* MakerOf(std::size_t content,
                                     const std::map<std::size_t, std::vector<std::size_t>>& readers) const {
    for (;;) {
      const auto made = made_by_.find(content);
      if (made == made_by_.end()) return nullptr;
      const Event& event = events_[made->second];
      if (!event.weight.empty()) return &event;
      if (!KeepsFactors(event.operation) || !event.first) return nullptr;
      content = *event.first;
      const auto others = readers.find(content);
      if (content == answer_ || others == readers.end() || others->second.size() != 1) return nullptr;
    }
  }

  const Network& network_;
  std::unordered_map<const void*, std::string> names_;  // of parameters
  std::unordered_map<const void*, std::size_t> layers_;
  std::vector<torch::Tensor> kept_;
  std::map<std::pair<const void*, std::uint32_t>, std::size_t> contents_;
  std::vector<Event> events_;
  std::map<std::size_t, std::size_t> made_by_;  // content -> event
  std::map<std::string, int> uses_;             // of parameters
  std::size_t answer_ = 0;
};

}  // namespace

std::vector<Equalizable> FindEqualizable(const Network& network) {
  if (network.has_rare_layers) return {};  // a pass of zeros does not see all that reads a tensor
  const torch::NoGradGuard no_grad;
  std::vector<std::int64_t> shape{2};
  shape.insert(shape.end(), network.input_shape.begin(), network.input_shape.end());
  PassRecorder recorder(network, network.module);
  torch::Tensor answer;
  {
    OperationObserver observer([&](auto operation, auto operands) { return recorder.Enter(operation, operands); },
                               [&](Operands outputs) { recorder.Leave(outputs); });
    answer = RunForward(network.module, torch::zeros(shape, network.input_type));
    observer.Rethrow();
  }
  recorder.End(answer);
  return recorder.Found();
}

}  // namespace bitplan
