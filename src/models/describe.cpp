#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <set>
#include <unordered_map>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"
#include "models/operation_matcher.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

constexpr const char* kUnused = "not used by forward";

struct Parameter {
  std::string path;  // the first of several attributes that share the tensor
  torch::Tensor value;
  std::optional<Layer> layer = std::nullopt;
  std::string reason = {};  // why it stays in float; empty while no operation said so
  int uses = 0;             // operations that took it
};

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

bool SameData(const torch::Tensor& a, const torch::Tensor& b) {
  return a.defined() && a.data_ptr() == b.data_ptr() && a.numel() == b.numel();
}

class Recorder {
 public:
  explicit Recorder(const torch::jit::Module& module) {
    for (const auto& entry : module.named_parameters()) {
      if (entry.value.numel() == 0) continue;
      if (by_address_.try_emplace(entry.value.data_ptr(), parameters_.size()).second) {
        parameters_.push_back({.path = entry.name, .value = entry.value});
      }
    }
    for (const auto& entry : module.named_buffers()) buffers_.try_emplace(entry.value.data_ptr(), entry.name);
  }

  bool Enter(std::string_view operation, Operands operands) {
    operation_ = operation;
    used_.clear();
    form_ = FormOf(operation, operands);
    window_ = form_ && std::string_view(form_->kind) == "conv2d" ? WindowOf(operation, operands) : std::nullopt;
    for (std::size_t i = 0; i < operands.size(); ++i) {
      if (operands[i].isTensor()) AddUse(i, operands[i].toTensor());
      if (operands[i].isTensorList()) {
        for (const torch::Tensor& tensor : operands[i].toTensorVector()) AddUse(i, tensor);
      }
    }
    batch_norm_ = BatchNormOf(operation, operands);
    // One that normalizes with statistics of the batch has no use for its running ones.
    const bool by_batch = batch_norm_ && operands[batch_norm_->training].toBool();
    if (batch_norm_ && !by_batch) AddBatchNorm(operands);
    if (by_batch) NoteWritten({operands[batch_norm_->running_mean], operands[batch_norm_->running_var]});
    if (operation.ends_with('_') && !operands.empty()) NoteWritten({operands[0]});
    if (!used_.empty() && IsFused(operation)) fused_ = operation;
    return !used_.empty();
  }

  void Leave(Operands outputs) {
    const auto output = std::find_if(outputs.begin(), outputs.end(), [](const auto& o) { return o.isTensor(); });
    if (output == outputs.end()) return;  // a question such as aten::size
    for (const auto& [index, operand, parameter] : used_) {
      if (SameData(output->toTensor(), parameters_[parameter].value)) return;  // a view: its user comes later
    }
    for (const auto& use : used_) Judge(use, output->toTensor());
    NoteBias();
  }

  // Buffers that an operation writes to.
  [[nodiscard]] const std::set<std::string>& written() const { return written_; }
  // The operation that hides layers, or nothing.
  [[nodiscard]] const std::string& fused() const { return fused_; }

  void Finish(const torch::jit::Module& module, Network& network) {
    for (const std::size_t index : order_) {
      if (!parameters_[index].reason.empty()) continue;
      network.layers.push_back(*parameters_[index].layer);
      const auto bias = biases_.find(index);
      if (bias == biases_.end()) continue;
      const Parameter& added = parameters_[bias->second];
      Layer& layer = network.layers.back();
      if (added.uses == 1 && added.value.numel() == layer.output_channels()) layer.bias = added.path;
    }
    for (const Parameter& parameter : parameters_) {
      if (parameter.layer && parameter.reason.empty()) continue;
      network.left_in_float.push_back({.parameter = parameter.path,
                                       .shape = parameter.value.sizes().vec(),
                                       .reason = parameter.reason.empty() ? kUnused : parameter.reason});
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
    std::size_t parameter;
  };

  void AddUse(std::size_t index, const torch::Tensor& operand) {
    if (!operand.defined() || !operand.has_storage()) return;
    const auto found = by_address_.find(operand.data_ptr());
    if (found != by_address_.end() && SameData(operand, parameters_[found->second].value)) {
      used_.push_back({index, operand, found->second});
    }
  }

  void NoteWritten(std::initializer_list<c10::IValue> values) {
    for (const c10::IValue& value : values) {
      if (!value.isTensor() || !value.toTensor().defined() || !value.toTensor().has_storage()) continue;
      const auto found = buffers_.find(value.toTensor().data_ptr());
      if (found != buffers_.end()) written_.insert(found->second);
    }
  }

  void AddBatchNorm(Operands operands) {
    const auto mean = buffers_.find(operands[batch_norm_->running_mean].toTensor().data_ptr());
    const auto variance = buffers_.find(operands[batch_norm_->running_var].toTensor().data_ptr());
    if (mean == buffers_.end() || variance == buffers_.end()) return;
    const auto known = [&](const BatchNorm& other) { return other.running_mean == mean->second; };
    if (std::any_of(batch_norms_.begin(), batch_norms_.end(), known)) {
      reused_batch_norms_.insert(mean->second);
      return;
    }
    batch_norms_.push_back({.name = std::string(WithoutLastPart(mean->second)),
                            .running_mean = mean->second,
                            .running_var = variance->second,
                            .channels = operands[batch_norm_->running_mean].toTensor().numel()});
  }

  void Judge(const Use& use, const torch::Tensor& output) {
    Parameter& parameter = parameters_[use.parameter];
    ++parameter.uses;
    if (form_ && use.index == form_->weight) {
      if (const auto output_dim = OutputDim(*form_, use.operand, parameter.value)) {
        AddLayerUse(use.parameter, *output_dim, output);
        return;
      }
    }
    const bool addition = operation_ == "aten::add" || operation_ == "aten::add_";
    if ((form_ && form_->bias == use.index) || (addition && parameter.value.dim() <= 1)) {
      parameter.reason = "bias";
    } else if (batch_norm_) {
      parameter.reason = "batch norm";
    } else if (operation_.find("conv") != std::string::npos && use.index == 2) {
      parameter.reason = "bias";
    } else {
      parameter.reason = "used by " + operation_;
    }
  }

  void NoteBias() {
    if (!form_ || !form_->bias) return;
    const auto at = [&](std::size_t operand) {
      return std::find_if(used_.begin(), used_.end(), [&](const Use& use) { return use.index == operand; });
    };
    const auto weight = at(form_->weight), bias = at(*form_->bias);
    if (weight == used_.end() || bias == used_.end() || bias->operand.dim() != 1) return;
    biases_.try_emplace(weight->parameter, bias->parameter);
  }

  void AddLayerUse(std::size_t index, int output_dim, const torch::Tensor& output) {
    Parameter& parameter = parameters_[index];
    if (!parameter.layer) {
      parameter.layer = Layer{.name = LayerName(parameter.path),
                              .parameter = parameter.path,
                              .kind = form_->kind,
                              .shape = parameter.value.sizes().vec(),
                              .output_dim = output_dim,
                              .macs = 0,
                              .uses = 0,
                              .window = window_};
      order_.push_back(index);
    }
    Layer& layer = *parameter.layer;
    ++layer.uses;
    layer.macs += output.numel() * (layer.weights() / parameter.value.size(output_dim));
  }

  std::vector<Parameter> parameters_;
  std::unordered_map<const void*, std::size_t> by_address_;
  std::unordered_map<const void*, std::string> buffers_;
  std::vector<std::size_t> order_;                       // of the first use of every layer
  std::unordered_map<std::size_t, std::size_t> biases_;  // of a weight's parameter
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
c10::IValue RunZeros(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count) {
  torch::NoGradGuard no_grad;
  SetTraining(module, false);
  std::vector<std::int64_t> batch{count};
  batch.insert(batch.end(), input_shape.begin(), input_shape.end());
  return module.forward({torch::zeros(batch)});
}

bool Takes(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count) {
  try {
    const c10::IValue output = RunZeros(module, input_shape, count);
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
Network Record(torch::jit::Module& module, std::set<std::string>& written, const std::function<void()>& pass) {
  Recorder recorder(module);
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
                     [](const FloatParameter& parameter) { return parameter.reason == kUnused; });
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
      if (left.parameter == parameter.parameter && left.reason == kUnused) left.reason = parameter.reason;
    }
  }
}

// Layers that only some of `images` reach.
void DescribeRareLayers(Network& network, std::set<std::string>& written, const torch::Tensor& images) {
  constexpr std::int64_t kBatch = 32, kMost = 2048;
  const torch::NoGradGuard no_grad;
  const std::int64_t count = std::min(kMost, images.size(0));
  for (std::int64_t begin = 0; begin < count && HasUnused(network); begin += kBatch) {
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + kBatch, count));
    Merge(network, Record(network.module, written, [&] { (void)RunForward(network.module, batch); }), batch.size(0));
  }
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
  const NamedTensors buffers = BuffersOf(module);
  std::set<std::string> written;
  Network network;
  try {
    network = Record(module, written, [&] { CheckOutput(RunZeros(module, input_shape, 1), name); });
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Refusal(module, name, input_shape, TorchReason(error));
  }
  network.name = name;
  network.input_shape = input_shape;
  if (!Takes(module, input_shape, 2)) throw OneBatchOnly(name, 1);
  if (images.defined() && HasUnused(network)) DescribeRareLayers(network, written, images);
  network.changed_by_forward = Changed(buffers, module, written);
  RestoreChangedByForward(network, module);
  if (network.layers.empty()) {
    throw Error(ErrorKind::kData,
                fmt::format("model '{}' has no layer to quantize: no conv2d or linear operation uses one of its {} "
                            "parameters (a model that was frozen has none: save it unfrozen)",
                            name, network.left_in_float.size()));
  }
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
