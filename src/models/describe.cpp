#include <fmt/format.h>
#include <fmt/ranges.h>

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"
#include "models/inlined_graph.h"
#include "models/operation_matcher.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

constexpr const char* kUnused = "not used by forward";

// Where a tensor of the network is kept: it decides whether a plan can put another one there.
enum class Home { kParameter, kBuffer, kInside, kConstant };  // kInside: of a list, tuple, dictionary or object

struct Stored {
  std::string path;  // the first of several attributes that share the tensor
  torch::Tensor value;
  Home home = Home::kParameter;
  std::string inside = {};  // the list, or the like, that holds the same tensor
  std::optional<Layer> layer = std::nullopt;
  std::string reason = {};  // why it stays in float; empty while no operation said so
  int uses = 0;             // operations that took it
  bool multiplied = false;  // an operation multiplied by it, as layers do
};

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

// What two views of one tensor share; a tensor without storage (sparse, MKL-DNN) is known by itself.
const void* AddressOf(const torch::Tensor& tensor) {
  return tensor.has_storage() ? tensor.data_ptr() : static_cast<const void*>(tensor.unsafeGetTensorImpl());
}

const void* StorageOf(const torch::Tensor& tensor) {
  return tensor.has_storage() ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl()) : AddressOf(tensor);
}

bool SameData(const torch::Tensor& a, const torch::Tensor& b) {
  return a.defined() && AddressOf(a) == AddressOf(b) && a.numel() == b.numel();
}

// Whether the first number of `part` is one of `whole`.
bool BeginsIn(const torch::Tensor& part, const torch::Tensor& whole) {
  std::int64_t last = 0;
  for (std::int64_t d = 0; d < whole.dim(); ++d) last += (whole.size(d) - 1) * whole.stride(d);
  const auto* const begin = static_cast<const char*>(AddressOf(whole));
  const auto* const at = static_cast<const char*>(AddressOf(part));
  return begin <= at && at <= begin + last * whole.element_size();
}

// Every tensor in a value, with its place in it: "ws[0]".
void ForEachTensor(const c10::IValue& value, const std::string& path,
                   const std::function<void(const std::string&, const torch::Tensor&)>& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) visit(path, value.toTensor());
  } else if (value.isList()) {
    std::size_t index = 0;
    for (const c10::IValue& item : value.toListRef()) ForEachTensor(item, fmt::format("{}[{}]", path, index++), visit);
  } else if (value.isTuple()) {
    std::size_t index = 0;
    for (const c10::IValue& item : value.toTupleRef().elements()) {
      ForEachTensor(item, fmt::format("{}[{}]", path, index++), visit);
    }
  } else if (value.isGenericDict()) {
    std::size_t index = 0;
    for (const auto& item : value.toGenericDict()) {
      const c10::IValue& key = item.key();
      const std::string name = key.isString() ? key.toStringRef() : std::to_string(index);
      ForEachTensor(item.value(), fmt::format("{}[{}]", path, name), visit);
      ++index;
    }
  } else if (value.isObject() && !value.isModule()) {
    const auto object = value.toObject();
    for (std::size_t slot = 0; slot < object->slots().size(); ++slot) {
      ForEachTensor(object->getSlot(slot), path + "." + object->type()->getAttributeName(slot), visit);
    }
  }
}

void CheckNotQuantized(const torch::jit::Graph& graph, const std::string& name) {
  ForEachNode(*graph.block(), [&](const torch::jit::Node& node) {
    const std::string operation = node.kind().toQualString();
    if (!operation.starts_with("quantized::") && !operation.starts_with("aten::quantized_")) return;
    throw Error(ErrorKind::kData, fmt::format("model '{}' is quantized already: {} multiplies by packed integers; give "
                                              "the float model that it was made from",
                                              name, operation));
  });
}

class Recorder {
 public:
  Recorder(const torch::jit::Module& module, const torch::jit::Graph& graph) {
    for (const auto& entry : module.named_parameters()) Add(entry.name, entry.value, Home::kParameter);
    for (const auto& entry : module.named_attributes()) {
      if (entry.value.isTensor() && entry.value.toTensor().defined()) {
        Add(entry.name, entry.value.toTensor(), Home::kBuffer);
      }
    }
    for (const auto& entry : module.named_attributes()) {
      if (entry.value.isTensor() || entry.value.isModule()) continue;
      ForEachTensor(entry.value, entry.name, [&](const std::string& path, const torch::Tensor& value) {
        if (const auto known = Find(value); known && SameData(value, stored_[*known].value)) {
          stored_[*known].inside = path;
        } else {
          Add(path, value, Home::kInside);
        }
      });
    }
    ForEachNode(*graph.block(), [&](const torch::jit::Node& node) {
      if (node.kind() != c10::prim::Constant || node.outputs().size() != 1) return;
      const auto constant = torch::jit::toIValue(node.output());
      if (!constant) return;
      ForEachTensor(*constant, "", [&](const std::string&, const torch::Tensor& value) {
        if (value.dim() > 0) Add(fmt::format("constant {}", constants_ + 1), value, Home::kConstant);
      });
    });
  }

  bool Enter(std::string_view operation, Operands operands) {
    operation_ = operation;
    used_.clear();
    form_ = FormOf(operation, operands);
    window_ = form_ && std::string_view(form_->kind) == "conv2d" ? WindowOf(operation, operands) : std::nullopt;
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
      const auto view = [&](const torch::Tensor& tensor) { return StorageOf(tensor) == StorageOf(use.operand); };
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
      if (!stored_[index].reason.empty()) continue;
      network.layers.push_back(*stored_[index].layer);
      const auto bias = biases_.find(index);
      if (bias == biases_.end()) continue;
      const Stored& added = stored_[bias->second];
      Layer& layer = network.layers.back();
      if (added.uses == 1 && added.value.numel() == layer.output_channels()) layer.bias = added.path;
    }
    for (const Stored& stored : stored_) {
      if (stored.layer && stored.reason.empty()) continue;
      const bool weight = stored.home == Home::kParameter || stored.multiplied;
      network.left_in_float.push_back(
          {.parameter = stored.path,
           .shape = stored.value.sizes().vec(),
           .reason = ReasonOf(stored),
           .bytes = stored.value.numel() * static_cast<std::int64_t>(stored.value.element_size()),
           .weight = weight && (stored.value.is_floating_point() || stored.value.is_complex())});
    }
    for (BatchNorm& norm : batch_norms_) {
      if (!reused_batch_norms_.contains(norm.running_mean)) network.batch_norms.push_back(std::move(norm));
    }
    network.module = module;
  }

 private:
  struct Use {
    std::size_t index;  // among the operands
    torch::Tensor operand;
    std::size_t stored;
  };

  static constexpr const char* kStatistics = "batch norm statistics";
  static constexpr const char* kConstantWeight =
      "constant of the graph: save the model unfrozen, with this weight as a parameter";

  void Add(const std::string& path, const torch::Tensor& value, Home home) {
    if (value.numel() == 0) return;
    const auto known = Find(value);
    if (known && SameData(value, stored_[*known].value)) return;
    by_storage_[StorageOf(value)].push_back(stored_.size());
    stored_.push_back({.path = path, .value = value, .home = home});
    if (home == Home::kConstant) ++constants_;
  }

  // The tensor that this one is; otherwise the smallest one that it is a view into.
  [[nodiscard]] std::optional<std::size_t> Find(const torch::Tensor& tensor) const {
    const auto sharing = by_storage_.find(StorageOf(tensor));
    if (sharing == by_storage_.end()) return std::nullopt;
    std::optional<std::size_t> found;
    for (const std::size_t index : sharing->second) {
      const torch::Tensor& value = stored_[index].value;
      if (SameData(tensor, value)) return index;
      if (BeginsIn(tensor, value) && (!found || value.numel() < stored_[*found].value.numel())) found = index;
    }
    return found;
  }

  void AddUse(std::size_t index, const torch::Tensor& operand) {
    if (!operand.defined()) return;
    if (const auto found = Find(operand)) used_.push_back({index, operand, *found});
  }

  void NoteWritten(std::initializer_list<c10::IValue> values) {
    for (const c10::IValue& value : values) {
      if (!value.isTensor() || !value.toTensor().defined()) continue;
      const auto found = Find(value.toTensor());
      if (found && stored_[*found].home == Home::kBuffer) written_.insert(stored_[*found].path);
    }
  }

  void AddBatchNorm(Operands operands) {
    const auto buffer = [&](std::size_t operand) -> const Stored* {
      const auto found = Find(operands[operand].toTensor());
      return found && stored_[*found].home == Home::kBuffer ? &stored_[*found] : nullptr;
    };
    const Stored* const mean = buffer(batch_norm_->running_mean);
    const Stored* const variance = buffer(batch_norm_->running_var);
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
  static std::string OutOfReach(const Stored& stored) {
    if (stored.home == Home::kConstant) return kConstantWeight;
    if (stored.home == Home::kInside) return "inside a list or the like: give it an attribute of its own";
    if (!stored.inside.empty()) return "also held as " + stored.inside + ": use only the attribute";
    if (!stored.value.has_storage()) return "sparse or in a format of its own: save it dense";
    if (!stored.value.is_floating_point()) return "not of floating point";
    return {};
  }

  void Judge(const Use& use, const torch::Tensor& output) {
    Stored& stored = stored_[use.stored];
    ++stored.uses;
    stored.multiplied = stored.multiplied || (MultipliesByWeights(operation_) && !IsAdded(operation_, use.index));
    if (form_ && use.index == form_->weight) {
      std::string obstacle = OutOfReach(stored);
      const auto output_dim = obstacle.empty() ? OutputDim(*form_, use.operand, stored.value) : std::nullopt;
      if (output_dim) {
        AddLayerUse(use.stored, *output_dim, output);
        return;
      }
      stored.reason = obstacle.empty() ? fmt::format(
                                             "a view into it is multiplied by {}: give that layer a parameter "
                                             "of its own",
                                             operation_)
                                       : obstacle;
      return;
    }
    const bool addition = operation_ == "aten::add" || operation_ == "aten::add_";
    if ((form_ && form_->bias == use.index) || (addition && stored.value.dim() <= 1)) {
      stored.reason = "bias";
    } else if (batch_norm_) {
      const bool statistics = use.index == batch_norm_->running_mean || use.index == batch_norm_->running_var;
      stored.reason = statistics ? kStatistics : "batch norm";
      stored.multiplied = stored.multiplied || !statistics;
    } else if (operation_.find("conv") != std::string::npos && use.index == 2) {
      stored.reason = "bias";
    } else {
      stored.reason = "used by " + operation_;
    }
  }

  static std::string ReasonOf(const Stored& stored) {
    if (stored.reason.empty()) return kUnused;
    if (stored.home == Home::kParameter || stored.multiplied || stored.reason == kStatistics) return stored.reason;
    return fmt::format("{}, not multiplied as a layer's weight",
                       stored.home == Home::kConstant ? "constant of the graph" : "buffer");
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

  void AddLayerUse(std::size_t index, int output_dim, const torch::Tensor& output) {
    Stored& stored = stored_[index];
    if (!stored.layer) {
      stored.layer = Layer{.name = LayerName(stored.path),
                           .parameter = stored.path,
                           .bias = {},
                           .kind = form_->kind,
                           .shape = stored.value.sizes().vec(),
                           .output_dim = output_dim,
                           .macs = 0,
                           .uses = 0,
                           .window = window_};
      order_.push_back(index);
    }
    Layer& layer = *stored.layer;
    ++layer.uses;
    layer.macs += output.numel() * (layer.weights() / stored.value.size(output_dim));
  }

  std::vector<Stored> stored_;
  int constants_ = 0;
  std::unordered_map<const void*, std::vector<std::size_t>> by_storage_;
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
  std::optional<BatchNormForm> batch_norm_;
};

std::string ShapeText(c10::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

void CheckOutput(const c10::IValue& output, const std::string& name) {
  if (!output.isTensor()) {
    const std::string kind = output.isTuple()         ? "a tuple"
                             : output.isGenericDict() ? "a dictionary"
                             : output.isList()        ? "a list"
                                                      : output.tagKind();
    throw Error(ErrorKind::kData, fmt::format("model '{}' returns {}; bitplan needs one tensor of logits "
                                              "[batch, classes]: wrap the model so that forward returns only that",
                                              name, kind));
  }
  const torch::Tensor logits = output.toTensor();
  if (logits.dim() != 2 || logits.size(0) != 1) {
    throw Error(ErrorKind::kData, fmt::format("model '{}' returns shape {} for one input; bitplan needs logits "
                                              "[batch, classes]",
                                              name, ShapeText(logits.sizes())));
  }
}

// `count` zero inputs in evaluation mode.
c10::IValue RunZeros(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count,
                     torch::ScalarType type = torch::kFloat) {
  torch::NoGradGuard no_grad;
  SetTraining(module, false);
  std::vector<std::int64_t> batch{count};
  batch.insert(batch.end(), input_shape.begin(), input_shape.end());
  return module.forward({torch::zeros(batch, type)});
}

// Whether a model that does not take floats of this shape takes integers, as an embedding does.
bool TakesIntegers(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape) {
  try {
    (void)RunZeros(module, input_shape, 1);
    return false;
  } catch (const std::exception&) {
  }
  try {
    (void)RunZeros(module, input_shape, 1, torch::kInt64);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

// Squares of weights, times squares of inputs, must stay within float32; the statistics of batch norms must be numbers.
void CheckMagnitudes(const Network& network) {
  constexpr float kLargestWeight = 1e12F;
  for (const BatchNorm& norm : network.batch_norms) {
    for (const std::string& buffer : {norm.running_mean, norm.running_var}) {
      if (GetTensor(network.module, buffer).isfinite().all().item<bool>()) continue;
      throw Error(ErrorKind::kData, fmt::format("model '{}': '{}' holds NaN or infinite values; train the model again",
                                                network.name, buffer));
    }
  }
  for (const Layer& layer : network.layers) {
    const float largest = GetTensor(network.module, layer.parameter).detach().abs().max().item<float>();
    if (largest <= kLargestWeight) continue;
    throw Error(ErrorKind::kData,
                fmt::format("model '{}': '{}' holds weights as large as {:g}; bitplan takes weights up to {:g}: scale "
                            "them down, or train the model again",
                            network.name, layer.parameter, largest, kLargestWeight));
  }
}

bool Takes(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count,
           torch::ScalarType type = torch::kFloat) {
  try {
    const c10::IValue output = RunZeros(module, input_shape, count, type);
    return output.isTensor() && output.toTensor().dim() > 0 && output.toTensor().size(0) == count;
  } catch (const std::exception&) {
    return false;
  }
}

Error OneBatchOnly(const std::string& name, std::int64_t count) {
  return {ErrorKind::kData,
          fmt::format("model '{}' takes batches of {} image{} only, because the size became a constant when it was "
                      "traced: use x.flatten(1) or x.shape[0] instead of a number in its forward, or torch.jit.script",
                      name, count, count == 1 ? "" : "s")};
}

// Why a model does not take a single input: made for batches of another size, or for inputs of another shape.
Error Refusal(torch::jit::Module& module, const std::string& name, const std::vector<std::int64_t>& input_shape,
              const std::string& reason) {
  std::vector<std::int64_t> taken;
  for (const std::int64_t count : {2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 25, 32, 48, 50, 64, 100, 128, 200, 256}) {
    if (Takes(module, input_shape, count)) taken.push_back(count);
    if (taken.size() > 1) break;
  }
  if (taken.size() == 1) return OneBatchOnly(name, taken[0]);
  if (taken.size() > 1) {
    return {ErrorKind::kData,
            fmt::format("model '{}' takes several images at once but not a single one: {}", name, reason)};
  }
  return {ErrorKind::kData,
          fmt::format("model '{}' does not take an input of shape {}: {}", name, ShapeText(input_shape), reason)};
}

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

NamedTensors BuffersOf(const torch::jit::Module& module) {
  NamedTensors buffers;
  for (const auto& entry : module.named_buffers()) buffers.emplace_back(entry.name, entry.value.detach().clone());
  return buffers;
}

// Those of `before` that are written to, or have other values in `module` now.
NamedTensors Changed(const NamedTensors& before, const torch::jit::Module& module,
                     const std::set<std::string>& written) {
  NamedTensors changed;
  for (const auto& [name, value] : before) {
    const torch::Tensor now = GetTensor(module, name);
    if (written.contains(name) || now.sizes() != value.sizes() ||
        !(now.eq(value) | (now.ne(now) & value.ne(value))).all().item<bool>()) {
      changed.emplace_back(name, value);
    }
  }
  return changed;
}

// One recorded pass; what it throws is its own affair.
Network Record(torch::jit::Module& module, const torch::jit::Graph& graph, std::set<std::string>& written,
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

bool HasUnused(const Network& network) {
  return std::any_of(network.left_in_float.begin(), network.left_in_float.end(),
                     [](const FloatParameter& parameter) { return parameter.weight && parameter.reason == kUnused; });
}

// Takes over what a pass of `count` other inputs shows of parameters that were unused so far.
void Merge(Network& network, const Network& other, std::int64_t count) {
  std::size_t place = 0;  // behind the layer that came before in this pass
  for (const Layer& layer : other.layers) {
    const auto known = std::find_if(network.layers.begin(), network.layers.end(),
                                    [&](const Layer& l) { return l.parameter == layer.parameter; });
    if (known != network.layers.end()) {
      known->uses = std::max(known->uses, layer.uses);
      place = static_cast<std::size_t>(known - network.layers.begin()) + 1;
      continue;
    }
    const auto left = std::find_if(network.left_in_float.begin(), network.left_in_float.end(),
                                   [&](const FloatParameter& p) { return p.parameter == layer.parameter; });
    if (left == network.left_in_float.end() || left->reason != kUnused) continue;
    network.left_in_float.erase(left);
    const auto added = network.layers.insert(network.layers.begin() + static_cast<std::ptrdiff_t>(place++), layer);
    added->macs /= count;
    network.has_rare_layers = true;
  }
  for (const FloatParameter& parameter : other.left_in_float) {
    for (FloatParameter& left : network.left_in_float) {
      if (left.parameter != parameter.parameter || left.reason != kUnused) continue;
      left.reason = parameter.reason;
      left.weight = parameter.weight;
    }
  }
}

// Layers that only some of `images` reach.
void DescribeRareLayers(Network& network, std::set<std::string>& written, const torch::jit::Graph& graph,
                        const torch::Tensor& images) {
  constexpr std::int64_t kBatch = 32, kMost = 2048;
  const torch::NoGradGuard no_grad;
  const std::int64_t count = std::min(kMost, images.size(0));
  for (std::int64_t begin = 0; begin < count && HasUnused(network); begin += kBatch) {
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + kBatch, count));
    Merge(network, Record(network.module, graph, written, [&] { (void)RunForward(network.module, batch); }),
          batch.size(0));
  }
}

std::string NoLayerText(const Network& network) {
  const auto& floats = network.left_in_float;
  const auto constants = std::count_if(floats.begin(), floats.end(), [](const FloatParameter& tensor) {
    return tensor.weight && tensor.parameter.starts_with("constant ");
  });
  if (constants > 0) {
    return fmt::format(
        "model '{}' has no layer to quantize: its weights are constants of the graph, as torch.jit.freeze "
        "leaves them: save it unfrozen",
        network.name);
  }
  return fmt::format(
      "model '{}' has no layer to quantize: no conv2d or linear operation multiplies by one of its {} "
      "parameters and buffers",
      network.name, floats.size());
}

}  // namespace

Network DescribeNetwork(torch::jit::Module module, const std::string& name,
                        const std::vector<std::int64_t>& input_shape, const torch::Tensor& images) {
  // An optimized graph, once a method has one, is used even where the optimizer is switched off later; it hides layers
  // in differentiable subgraphs and may change the arithmetic after a few runs.
  torch::jit::setGraphExecutorOptimize(false);
  if (!module.find_method("forward")) {
    throw Error(ErrorKind::kData, fmt::format("model '{}' has no forward method", name));
  }
  const auto graph = InlinedGraph(module);
  CheckNotQuantized(*graph, name);
  const NamedTensors buffers = BuffersOf(module);  // before the first pass
  const torch::ScalarType type = TakesIntegers(module, input_shape) ? torch::kInt64 : torch::kFloat;
  std::set<std::string> written;
  Network network;
  try {
    network = Record(module, *graph, written, [&] { CheckOutput(RunZeros(module, input_shape, 1, type), name); });
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Refusal(module, name, input_shape, TorchReason(error));
  }
  network.name = name;
  network.input_shape = input_shape;
  network.input_type = type;
  if (!Takes(module, input_shape, 2, type)) throw OneBatchOnly(name, 1);
  if (images.defined() && HasUnused(network)) {
    DescribeRareLayers(network, written, *graph, type == torch::kFloat ? images : images.to(type));
  }
  network.changed_by_forward = Changed(buffers, module, written);
  RestoreChangedByForward(network, module);
  if (network.layers.empty()) throw Error(ErrorKind::kData, NoLayerText(network));
  CheckMagnitudes(network);
  return network;
}

void RestoreChangedByForward(const Network& network, const torch::jit::Module& module) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, value] : network.changed_by_forward) {
    const torch::Tensor now = GetTensor(module, name);
    if (now.sizes() == value.sizes()) {
      now.copy_(value);
    } else {
      torch::jit::Module owner = module;
      SetTensor(owner, name, value.clone());
    }
  }
}

std::vector<std::int64_t> GuessInputShape(const torch::jit::Module& module) {
  static const std::vector<std::vector<std::int64_t>> shapes = {{1, 28, 28}, {3, 32, 32}, {1, 32, 32},  {3, 28, 28},
                                                                {3, 64, 64}, {784},       {3, 224, 224}};
  if (module.find_method("forward")) CheckNotQuantized(*InlinedGraph(module), "given");
  std::string reason;
  for (const auto& shape : shapes) {
    try {
      torch::jit::Module tried = module;
      (void)RunZeros(tried, shape, 1);
      return shape;
    } catch (const std::exception& error) {
      if (reason.empty()) reason = TorchReason(error);
    }
  }
  throw Error(ErrorKind::kData, fmt::format("the model takes none of the input shapes of the known data sets ({} for "
                                            "the first, {}); give its input shape, as in --shape 3,32,32",
                                            reason, ShapeText(shapes.front())));
}

}  // namespace bitplan
