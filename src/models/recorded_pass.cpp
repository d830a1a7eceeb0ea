#include "models/recorded_pass.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "models/operation_matcher.h"
#include "models/stored_tensors.h"

namespace bitplan {
namespace {

// An operation whose floating-point constants are what training made, not masks or encodings.
bool MultipliesByWeights(std::string_view operation) {
  for (const char* part : {"conv", "linear", "mm", "matmul", "mv", "dot", "einsum", "lstm", "gru", "rnn", "embedding",
                           "attention", "transformer", "layer_norm", "group_norm", "instance_norm", "prelu"}) {
    if (operation.find(part) != std::string_view::npos) return true;
  }
  return false;
}

// Whether such an operation adds its operand `index` to a product, as it does with an attention mask.
bool IsAdded(std::string_view operation, std::size_t index) {
  if (operation.find("scaled_dot_product") != std::string_view::npos) return index >= 3;
  for (const char* sum : {"aten::addmm", "aten::addmv", "aten::addbmm", "aten::baddbmm"}) {
    if (operation.starts_with(sum)) return index == 0;
  }
  return false;
}

std::string_view WithoutLastPart(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
}

// "features.3.weight" -> "features.3"; a parameter that is not called weight keeps its whole path.
std::string LayerName(const std::string& path) {
  return path.ends_with(".weight") ? std::string(WithoutLastPart(path)) : path;
}

// Whole attention blocks as one operation: PyTorch's fast path for inference.
bool IsFused(std::string_view operation) {
  return operation == "aten::_transformer_encoder_layer_fwd" || operation == "aten::_native_multi_head_attention" ||
         operation == "aten::_transformer_decoder_only_layer_fwd" ||
         operation == "aten::_native_decoder_only_multi_head_attention";
}

// Watches the operations of a pass.
class Recorder {
 public:
  Recorder(const torch::jit::Module& module, const torch::jit::Graph& graph)
      : stored_(module, graph), roles_(stored_.size()) {}

  bool Enter(std::string_view operation, Operands operands) {
    operation_ = operation;
    used_.clear();
    form_ = FormOf(operation, operands);
    window_ = form_ ? WindowOf(operation, operands) : std::nullopt;
    input_values_ = form_ && operands[form_->input].isTensor() ? operands[form_->input].toTensor().numel() : 0;
    grouped_ = IsGroupedTransposed(operation, operands);
    recurrent_ = RecurrentOf(operation, operands);
    batch_norm_ = BatchNormOf(operation, operands);
    for (std::size_t i = 0; i < operands.size(); ++i) {
      if (!operands[i].isTensor() && !operands[i].isList()) continue;
      ForEachTensor(operands[i], "", [&](const std::string&, const torch::Tensor& tensor) { AddUse(i, tensor); });
    }
    // One that normalizes with statistics of the batch has no use for its running ones.
    const bool by_batch = batch_norm_ && operands[batch_norm_->training].toBool();
    if (batch_norm_ && !by_batch) AddBatchNorm(operands);
    if (by_batch) NoteWritten({operands[batch_norm_->running_mean], operands[batch_norm_->running_var]});
    if (operation.ends_with('_') && !operands.empty()) NoteWritten({operands[0]});
    if (!used_.empty() && IsFused(operation)) fused_ = operation;
    return !used_.empty();
  }

  void Leave(Operands outputs) {
    std::vector<torch::Tensor> made;
    for (const c10::IValue& output : outputs) {
      ForEachTensor(output, "", [&](const std::string&, const torch::Tensor& tensor) { made.push_back(tensor); });
    }
    if (made.empty()) return;  // a question such as aten::size
    for (const Use& use : used_) {
      const auto view = [&](const torch::Tensor& tensor) { return ShareStorage(tensor, use.operand); };
      if (std::any_of(made.begin(), made.end(), view)) return;  // a view: its user comes later
    }
    for (const Use& use : used_) Judge(use, made.front());
    NoteBias();
  }

  // Buffers that an operation writes to.
  [[nodiscard]] const std::set<std::string>& written() const { return written_; }
  // The operation that hides layers, or nothing.
  [[nodiscard]] const std::string& fused() const { return fused_; }

  void Finish(const torch::jit::Module& module, Network& network) {
    for (const std::size_t index : order_) {
      if (!roles_[index].reason.empty()) continue;
      network.layers.push_back(*roles_[index].layer);
      const auto bias = biases_.find(index);
      if (bias == biases_.end()) continue;
      const StoredTensor& added = stored_[bias->second];
      Layer& layer = network.layers.back();
      if (!layer.meets_whole_input) continue;
      if (roles_[bias->second].uses == 1 && added.value.numel() == layer.output_channels()) layer.bias = added.path;
    }
    for (std::size_t i = 0; i < stored_.size(); ++i) {
      const StoredTensor& stored = stored_[i];
      if (roles_[i].layer && roles_[i].reason.empty()) continue;
      const bool weight = stored.home == TensorHome::kParameter || roles_[i].multiplied;
      network.left_in_float.push_back(
          {.parameter = stored.path,
           .shape = stored.value.sizes().vec(),
           .reason = ReasonOf(stored, roles_[i]),
           .bytes = stored.value.numel() * static_cast<std::int64_t>(stored.value.element_size()),
           .weight = weight && (stored.value.is_floating_point() || stored.value.is_complex())});
    }
    for (BatchNorm& norm : batch_norms_) {
      if (!reused_batch_norms_.contains(norm.running_mean)) network.batch_norms.push_back(std::move(norm));
    }
    network.module = module;
  }

 private:
  // What the pass does with a tensor.
  struct Role {
    std::optional<Layer> layer = std::nullopt;
    std::string reason = {};  // why it stays in float; empty while no operation said so
    int uses = 0;             // operations that took it
    bool multiplied = false;  // an operation multiplied by it, as layers do
  };

  struct Use {
    std::size_t index;  // among the operands
    torch::Tensor operand;
    std::size_t stored;
  };

  static constexpr const char* kStatistics = "batch norm statistics";
  static constexpr const char* kConstantWeight =
      "constant of the graph: save the model unfrozen, with this weight as a parameter";

  void AddUse(std::size_t index, const torch::Tensor& operand) {
    if (!operand.defined()) return;
    if (const auto found = stored_.Find(operand)) used_.push_back({index, operand, *found});
  }

  void NoteWritten(std::initializer_list<c10::IValue> values) {
    for (const c10::IValue& value : values) {
      if (!value.isTensor() || !value.toTensor().defined()) continue;
      const auto found = stored_.Find(value.toTensor());
      if (found && stored_[*found].home == TensorHome::kBuffer) written_.insert(stored_[*found].path);
    }
  }

  void AddBatchNorm(Operands operands) {
    const auto buffer = [&](std::size_t operand) -> const StoredTensor* {
      const auto found = stored_.Find(operands[operand].toTensor());
      return found && stored_[*found].home == TensorHome::kBuffer ? &stored_[*found] : nullptr;
    };
    const StoredTensor* const mean = buffer(batch_norm_->running_mean);
    const StoredTensor* const variance = buffer(batch_norm_->running_var);
    if (mean == nullptr || variance == nullptr) return;
    const auto known = [&](const BatchNorm& other) { return other.running_mean == mean->path; };
    if (std::any_of(batch_norms_.begin(), batch_norms_.end(), known)) {
      reused_batch_norms_.insert(mean->path);
      return;
    }
    batch_norms_.push_back({.name = std::string(WithoutLastPart(mean->path)),
                            .running_mean = mean->path,
                            .running_var = variance->path,
                            .channels = operands[batch_norm_->running_mean].toTensor().numel()});
  }

  // Why a plan cannot put another tensor in the place of this one; empty when it can.
  static std::string OutOfReach(const StoredTensor& stored) {
    if (stored.home == TensorHome::kConstant) return kConstantWeight;
    if (stored.home == TensorHome::kInside) return "inside a list or the like: give it an attribute of its own";
    if (!stored.inside.empty()) return "also held as " + stored.inside + ": use only the attribute";
    if (!stored.value.has_storage()) return "sparse or in a format of its own: save it dense";
    if (!stored.value.is_floating_point()) return "not of floating point";
    return {};
  }

  void Judge(const Use& use, const torch::Tensor& output) {
    const StoredTensor& stored = stored_[use.stored];
    Role& role = roles_[use.stored];
    ++role.uses;
    role.multiplied = role.multiplied || (MultipliesByWeights(operation_) && !IsAdded(operation_, use.index));
    if (form_ && use.index == form_->weight) {
      const bool whole = use.operand.numel() == stored.value.numel();
      AddLayerUse(use, *form_, {MacsOf(use.operand, output.numel()), output.numel(), whole});
      return;
    }
    if (const RecurrentWeight* const weight = RecurrentWeightOf(use)) {
      const LayerForm form{recurrent_->kind, 0, use.index, std::nullopt, 0};
      const std::int64_t rows = recurrent_->rows();
      AddLayerUse(use, form, {rows * use.operand.numel(), rows * use.operand.size(0), weight->meets_input});
      return;
    }
    const bool addition = operation_ == "aten::add" || operation_ == "aten::add_";
    const bool of_gates = recurrent_ && use.operand.dim() == 1;
    if ((form_ && form_->bias == use.index) || (addition && stored.value.dim() <= 1) || of_gates) {
      role.reason = "bias";
    } else if (batch_norm_) {
      const bool statistics = use.index == batch_norm_->running_mean || use.index == batch_norm_->running_var;
      role.reason = statistics ? kStatistics : "batch norm";
      role.multiplied = role.multiplied || !statistics;
    } else if (operation_.find("conv") != std::string::npos && use.index == 2) {
      role.reason = "bias";
    } else if (grouped_ && use.index == 1) {
      role.reason = "used by " + operation_ + " in groups, whose output channels are no dimension of it";
    } else {
      role.reason = "used by " + operation_;
    }
  }

  static std::string ReasonOf(const StoredTensor& stored, const Role& role) {
    if (role.reason.empty()) return kNotUsed;
    if (stored.home == TensorHome::kParameter || role.multiplied || role.reason == kStatistics) return role.reason;
    return fmt::format("{}, not multiplied as a layer's weight",
                       stored.home == TensorHome::kConstant ? "constant of the graph" : "buffer");
  }

  void NoteBias() {
    if (!form_ || !form_->bias) return;
    const auto at = [&](std::size_t operand) {
      return std::find_if(used_.begin(), used_.end(), [&](const Use& use) { return use.index == operand; });
    };
    const auto weight = at(form_->weight), bias = at(*form_->bias);
    if (weight == used_.end() || bias == used_.end() || bias->operand.dim() != 1) return;
    if (!OutOfReach(stored_[bias->stored]).empty()) return;
    biases_.try_emplace(weight->stored, bias->stored);
  }

  // What an operation does with a weight.
  struct LayerUse {
    std::int64_t macs, output_values;
    bool meets_whole_input;
  };

  void AddLayerUse(const Use& use, const LayerForm& form, const LayerUse& done) {
    const StoredTensor& stored = stored_[use.stored];
    Role& role = roles_[use.stored];
    if (const std::string obstacle = OutOfReach(stored); !obstacle.empty()) {
      role.reason = obstacle;
      return;
    }
    const auto output_dim = OutputDim(form, use.operand, stored.value);
    if (!output_dim) {
      role.reason =
          fmt::format("a view into it is multiplied by {}: give that layer a parameter of its own", operation_);
      return;
    }
    if (!role.layer) {
      role.layer = Layer{.name = LayerName(stored.path),
                         .parameter = stored.path,
                         .bias = {},
                         .kind = form.kind,
                         .shape = stored.value.sizes().vec(),
                         .output_dim = *output_dim,
                         .macs = 0,
                         .uses = 0,
                         .window = window_,
                         .output_values = 0};
      order_.push_back(use.stored);
    }
    Layer& layer = *role.layer;
    ++layer.uses;
    layer.output_values += done.output_values;
    layer.macs += done.macs;
    layer.meets_whole_input = layer.meets_whole_input && done.meets_whole_input;
  }

  // Multiply-accumulates of the operation that runs, which takes `weight`.
  [[nodiscard]] std::int64_t MacsOf(const torch::Tensor& weight, std::int64_t outputs) const {
    if (std::string_view(form_->kind) == "embedding") return 0;
    const bool transposed = std::string_view(form_->kind).starts_with("conv_transpose");
    return transposed ? input_values_ * (weight.numel() / weight.size(0))
                      : outputs * (weight.numel() / weight.size(form_->output_dim));
  }

  [[nodiscard]] const RecurrentWeight* RecurrentWeightOf(const Use& use) const {
    if (!recurrent_) return nullptr;
    for (const RecurrentWeight& weight : recurrent_->weights) {
      if (weight.weight.is_same(use.operand)) return &weight;
    }
    return nullptr;
  }

  const StoredTensors stored_;
  std::vector<Role> roles_;                              // of every one of `stored_`
  std::vector<std::size_t> order_;                       // of the first use of every layer
  std::unordered_map<std::size_t, std::size_t> biases_;  // of a weight
  std::vector<BatchNorm> batch_norms_;
  std::set<std::string> reused_batch_norms_;  // running means
  std::set<std::string> written_;
  std::string fused_;
  // The operation that runs.
  std::string operation_;
  std::vector<Use> used_;
  std::optional<LayerWindow> window_;
  std::optional<LayerForm> form_;
  std::optional<RecurrentForm> recurrent_;
  std::int64_t input_values_ = 0;
  bool grouped_ = false;  // IsGroupedTransposed
  std::optional<BatchNormForm> batch_norm_;
};

}  // namespace

Network RecordPass(const torch::jit::Module& module, const torch::jit::Graph& graph, std::set<std::string>& written,
                   const std::function<void()>& pass) {
  Recorder recorder(module, graph);
  {
    OperationObserver observer([&](auto operation, auto operands) { return recorder.Enter(operation, operands); },
                               [&](Operands outputs) { recorder.Leave(outputs); });
    pass();
    observer.Rethrow();
  }
  if (!recorder.fused().empty()) {
    throw Error(ErrorKind::kData,
                fmt::format("attention of the model runs as one operation, {}, which hides its layers and has no "
                            "gradient: trace the model outside torch.no_grad() while its parameters require gradients, "
                            "or use torch.jit.script",
                            recorder.fused()));
  }
  written.insert(recorder.written().begin(), recorder.written().end());
  Network network;
  recorder.Finish(module, network);
  return network;
}

}  // namespace bitplan
