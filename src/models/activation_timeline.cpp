#include "bitplan/models/activation_timeline.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "models/operation_matcher.h"
#include "models/stored_tensors.h"

namespace bitplan {
namespace {

// A view of everything that no program writes: the end of the slice says which tensor a layer reads through it.
constexpr std::int64_t kMarkerEnd = std::numeric_limits<std::int64_t>::max() - (std::int64_t{1} << 40);

void InsertMarker(torch::jit::Value* value, std::size_t tensor) {
  torch::jit::Node* const made_by = value->node();
  torch::jit::Graph& graph = *value->owningGraph();
  torch::jit::Node* const next =
      made_by->kind() == c10::prim::Param ? *made_by->owningBlock()->nodes().begin() : made_by->next();
  const torch::jit::WithInsertPoint here(next);
  torch::jit::Value* const view = graph.insert(
      c10::aten::slice,
      {value, std::int64_t{0}, std::int64_t{0}, kMarkerEnd - static_cast<std::int64_t>(tensor), std::int64_t{1}});
  view->copyMetadata(value);
  value->replaceAllUsesAfterNodeWith(view->node(), view);
}

std::optional<std::size_t> MarkedTensor(std::string_view operation, Operands operands, std::size_t layers) {
  if (operation != "aten::slice" || operands.size() < 4 || !operands[3].isInt()) return std::nullopt;
  const std::int64_t index = kMarkerEnd - operands[3].toInt();
  if (index < 0 || index >= static_cast<std::int64_t>(layers)) return std::nullopt;
  return static_cast<std::size_t>(index);
}

// What a tensor holds from one write to the next.
struct Content {
  std::size_t made = 0, last = 0;      // steps
  std::set<std::size_t> quantizers{};  // tensors of layers: it is read behind these
  bool read_in_float = false;
};

// Memory that tensors share.
struct Memory {
  std::int64_t bytes = 0, element_size = 0;
  bool floats = false;
  std::vector<Content> contents{};
};

class LifetimeRecorder {
 public:
  LifetimeRecorder(const torch::jit::Module& module, const torch::jit::Graph& graph, const Network& network)
      : network_(network), stored_(module, graph) {
    for (std::size_t i = 0; i < stored_.size(); ++i) ignored_.insert(AddressIn(stored_[i].value));
    for (const Layer& layer : network.layers) {
      if (!layer.is_recurrent()) weights_[GetTensor(module, layer.parameter).data_ptr()] = layer.name;
    }
  }

  void Begin(const torch::Tensor& images) { (void)MemoryOf(images); }

  bool Enter(std::string_view operation, Operands operands) {
    operation_ = operation;
    read_.clear();
    marker_ = MarkedTensor(operation, operands, network_.layers.size());
    for (const c10::IValue& operand : operands) {
      ForEachTensor(operand, "", [&](const std::string&, const torch::Tensor& tensor) {
        if (IsActivation(tensor)) read_.push_back({tensor, tensor._version()});
      });
    }
    layer_.clear();
    if (const auto form = FormOf(operation, operands)) {
      const auto found = weights_.find(operands[form->weight].toTensor().data_ptr());
      if (found != weights_.end()) layer_ = found->second;
    }
    return true;
  }

  void Leave(Operands outputs) {
    std::vector<torch::Tensor> made;
    bool answers = false;  // with a tensor: it does not only ask for sizes
    for (const c10::IValue& output : outputs) {
      ForEachTensor(output, "", [&](const std::string&, const torch::Tensor& tensor) {
        answers = true;
        if (IsActivation(tensor)) made.push_back(tensor);
      });
    }
    if (!answers) return;
    if (marker_) {
      for (const torch::Tensor& view : made) Mark(view, *marker_);
      return;
    }
    Read(made);
    for (const torch::Tensor& tensor : made) {
      MemoryOf(tensor).contents.back().last = step_;
      if (const auto source = ViewedMark(tensor)) Mark(tensor, *source);
    }
    where_.push_back(!layer_.empty() ? layer_ : after_.empty() ? operation_ : operation_ + " after " + after_);
    if (!layer_.empty()) after_ = layer_;
    ++step_;
  }

  void End(const torch::Tensor& answer) {
    if (!IsActivation(answer)) return;
    Content& content = MemoryOf(answer).contents.back();
    content.last = step_;
    content.read_in_float = true;
  }

  [[nodiscard]] std::vector<ActivationStep> Steps() const {
    std::vector<ActivationStep> steps;
    for (std::size_t t = 0; t < step_; ++t) {
      steps.push_back(LiveAt(t, false));
      ActivationStep after = LiveAt(t, true);  // another one where an operation writes in place
      if (after.float_bytes != steps.back().float_bytes || after.rounded != steps.back().rounded) {
        steps.push_back(std::move(after));
      }
    }
    return steps;
  }

 private:
  struct ReadTensor {
    torch::Tensor tensor;
    std::int64_t version;
  };
  struct MarkOf {
    std::size_t tensor;
    std::size_t content;  // which content of the memory it was set on
  };

  static const void* AddressIn(const torch::Tensor& tensor) {
    return tensor.has_storage() ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl())
                                : static_cast<const void*>(tensor.unsafeGetTensorImpl());
  }

  [[nodiscard]] bool IsActivation(const torch::Tensor& tensor) const {
    return tensor.defined() && tensor.dim() > 0 && !ignored_.contains(AddressIn(tensor));
  }

  Memory& MemoryOf(const torch::Tensor& tensor) {
    const auto [entry, fresh] = places_.try_emplace(AddressIn(tensor), memories_.size());
    if (fresh) {
      kept_.push_back(tensor);  // or its address would be another's
      Memory memory{.element_size = static_cast<std::int64_t>(tensor.element_size()),
                    .floats = tensor.scalar_type() == torch::kFloat};
      memory.bytes = tensor.has_storage() ? static_cast<std::int64_t>(tensor.storage().nbytes())
                                          : tensor.numel() * memory.element_size;
      memory.contents.push_back({.made = step_, .last = step_});
      memories_.push_back(std::move(memory));
    }
    return memories_[entry->second];
  }

  void Mark(const torch::Tensor& tensor, std::size_t quantizer) {
    kept_.push_back(tensor);
    marks_[tensor.unsafeGetTensorImpl()] = {quantizer, MemoryOf(tensor).contents.size()};
  }

  // The quantizer that a tensor is read behind; nothing once somebody wrote into it.
  std::optional<std::size_t> MarkOn(const torch::Tensor& tensor) {
    const auto found = marks_.find(tensor.unsafeGetTensorImpl());
    if (found == marks_.end() || found->second.content != MemoryOf(tensor).contents.size()) return std::nullopt;
    return found->second.tensor;
  }

  // That of the first operand that shares memory with an output.
  std::optional<std::size_t> ViewedMark(const torch::Tensor& output) {
    for (const ReadTensor& read : read_) {
      if (AddressIn(read.tensor) == AddressIn(output)) return MarkOn(read.tensor);
    }
    return std::nullopt;
  }

  // `made`: the outputs.
  void Read(const std::vector<torch::Tensor>& made) {
    std::set<const void*> written;
    for (const ReadTensor& read : read_) {
      Content& content = MemoryOf(read.tensor).contents.back();
      content.last = step_;
      const bool writes = read.tensor._version() != read.version;
      const bool views = !writes && std::any_of(made.begin(), made.end(), [&](const torch::Tensor& output) {
        return AddressIn(output) == AddressIn(read.tensor);
      });
      if (writes) written.insert(AddressIn(read.tensor));
      if (views) continue;  // whoever reads the view reads it
      if (const auto quantizer = MarkOn(read.tensor)) {
        content.quantizers.insert(*quantizer);
      } else {
        content.read_in_float = true;
      }
    }
    for (const void* address : written) {
      memories_[places_.at(address)].contents.push_back({.made = step_, .last = step_});
    }
  }

  [[nodiscard]] ActivationStep LiveAt(std::size_t step, bool after_write) const {
    ActivationStep live{.where = where_[step]};
    for (const Memory& memory : memories_) {
      const Content* held = nullptr;
      for (const Content& content : memory.contents) {
        if (content.made > step || content.last < step) continue;
        if (held == nullptr || after_write) held = &content;
      }
      if (held == nullptr) continue;
      const bool rounded = memory.floats && !held->read_in_float && held->quantizers.size() == 1;
      if (rounded) {
        live.rounded.push_back({*held->quantizers.begin(), memory.bytes / memory.element_size});
      } else {
        live.float_bytes += memory.bytes;
      }
    }
    return live;
  }

  const Network& network_;
  const StoredTensors stored_;
  std::set<const void*> ignored_;  // memory of what the module holds
  std::map<const void*, std::string> weights_;
  std::vector<torch::Tensor> kept_;
  std::map<const void*, std::size_t> places_;
  std::vector<Memory> memories_;
  std::map<const void*, MarkOf> marks_;  // of tensors
  std::size_t step_ = 0;
  std::vector<std::string> where_;  // [steps]
  std::string after_;               // the last layer that ran
  // The operation that runs.
  std::string operation_, layer_;
  std::optional<std::size_t> marker_;
  std::vector<ReadTensor> read_;
};

}  // namespace

ActivationTimeline FindActivationTimeline(const Network& network) {
  const torch::NoGradGuard no_grad;
  torch::jit::Module module = network.module.clone();
  torch::jit::Graph& graph = *module.get_method("forward").graph();
  InlineCalls(graph);
  const ReadValues values = ValuesOf(FindLayerReads(graph, module, network));
  ActivationTimeline timeline{FirstReaders(values, network.layers.size()), {}};
  for (const auto& [value, readers] : values) InsertMarker(value, timeline.tensors[readers.front()]);
  std::vector<std::int64_t> shape{1};
  shape.insert(shape.end(), network.input_shape.begin(), network.input_shape.end());
  const torch::Tensor image = torch::zeros(shape, network.input_type);
  LifetimeRecorder recorder(module, graph, network);
  recorder.Begin(image);
  torch::Tensor answer;
  {
    OperationObserver observer([&](auto operation, auto operands) { return recorder.Enter(operation, operands); },
                               [&](Operands outputs) { recorder.Leave(outputs); });
    answer = RunForward(module, image);
    observer.Rethrow();
  }
  recorder.End(answer);
  timeline.steps = WithoutDominated(recorder.Steps());
  return timeline;
}

}  // namespace bitplan
