#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"
#include "models/operation_matcher.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

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
    if (batch_norm_) AddBatchNorm(operands);
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
                                       .reason = parameter.reason.empty() ? "not used by forward" : parameter.reason});
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

// One zero input in evaluation mode.
c10::IValue RunOnce(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape) {
  torch::NoGradGuard no_grad;
  SetTraining(module, false);
  std::vector<std::int64_t> batch{1};
  batch.insert(batch.end(), input_shape.begin(), input_shape.end());
  return module.forward({torch::zeros(batch)});
}

}  // namespace

Network DescribeNetwork(torch::jit::Module module, const std::string& name,
                        const std::vector<std::int64_t>& input_shape) {
  // An optimized graph, once a method has one, is used even where the optimizer is switched off later; it hides layers
  // in differentiable subgraphs and may change the arithmetic after a few runs.
  torch::jit::setGraphExecutorOptimize(false);
  if (!module.find_method("forward")) {
    throw Error(ErrorKind::kData, fmt::format("model '{}' has no forward method", name));
  }
  Recorder recorder(module);
  OperationObserver observer([&](auto operation, auto operands) { return recorder.Enter(operation, operands); },
                             [&](Operands outputs) { recorder.Leave(outputs); });
  try {
    CheckOutput(RunOnce(module, input_shape), name);
    observer.Rethrow();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kData, fmt::format("model '{}' does not take an input of shape {}: {}", name,
                                              ShapeText(input_shape), TorchReason(error)));
  }
  Network network;
  network.name = name;
  network.input_shape = input_shape;
  recorder.Finish(module, network);
  if (network.layers.empty()) {
    throw Error(ErrorKind::kData,
                fmt::format("model '{}' has no layer to quantize: no conv2d or linear operation uses one of its {} "
                            "parameters (a model that was frozen has none: save it unfrozen)",
                            name, network.left_in_float.size()));
  }
  return network;
}

std::vector<std::int64_t> GuessInputShape(const torch::jit::Module& module) {
  static const std::vector<std::vector<std::int64_t>> shapes = {{1, 28, 28}, {3, 32, 32}, {1, 32, 32},  {3, 28, 28},
                                                                {3, 64, 64}, {784},       {3, 224, 224}};
  std::string reason;
  for (const auto& shape : shapes) {
    try {
      torch::jit::Module tried = module;
      (void)RunOnce(tried, shape);
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
