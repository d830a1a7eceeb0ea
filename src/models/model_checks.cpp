#include "models/model_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>

#include "bitplan/core/counted.h"
#include "models/inlined_graph.h"

namespace bitplan {
namespace {

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
      "model '{}' has no layer to quantize: no convolution, linear, recurrent or embedding operation uses one of its "
      "parameters and buffers ({})",
      network.name, floats.size());
}

}  // namespace

std::string BracketedShape(c10::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

c10::IValue RunZeros(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count,
                     torch::ScalarType type) {
  torch::NoGradGuard no_grad;
  SetTraining(module, false);
  std::vector<std::int64_t> batch{count};
  batch.insert(batch.end(), input_shape.begin(), input_shape.end());
  return module.forward({torch::zeros(batch, type)});
}

bool TakesBatch(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count,
                torch::ScalarType type) {
  try {
    const c10::IValue output = RunZeros(module, input_shape, count, type);
    return output.isTensor() && output.toTensor().dim() > 0 && output.toTensor().size(0) == count;
  } catch (const std::exception&) {
    return false;
  }
}

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

void CheckNotQuantized(const torch::jit::Graph& graph, const std::string& name) {
  ForEachNode(*graph.block(), [&](const torch::jit::Node& node) {
    const std::string operation = node.kind().toQualString();
    if (!operation.starts_with("quantized::") && !operation.starts_with("aten::quantized_")) return;
    throw Error(ErrorKind::kData, fmt::format("model '{}' is quantized already: {} multiplies by packed integers; give "
                                              "the float model that it was made from",
                                              name, operation));
  });
}

void CheckOutput(const c10::IValue& output, const std::string& name) {
  if (!output.isTensor()) {
    const std::string kind = output.isTuple()         ? "a tuple"
                             : output.isGenericDict() ? "a dictionary"
                             : output.isList()        ? "a list"
                                                      : output.tagKind();
    throw Error(ErrorKind::kData, fmt::format("model '{}' returns {}; bitplan needs one tensor, such as logits "
                                              "[batch, classes]: wrap the model so that forward returns only that",
                                              name, kind));
  }
  const torch::Tensor logits = output.toTensor();
  if (logits.dim() < 1 || logits.size(0) != 1) {
    throw Error(ErrorKind::kData, fmt::format("model '{}' returns shape {} for one input; bitplan needs outputs whose "
                                              "first dimension counts the inputs, as logits [batch, classes]",
                                              name, BracketedShape(logits.sizes())));
  }
}

void CheckHasLayers(const Network& network) {
  if (network.layers.empty()) throw Error(ErrorKind::kData, NoLayerText(network));
}

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

Error OneBatchOnly(const std::string& name, std::int64_t count) {
  return {ErrorKind::kData,
          fmt::format("model '{}' takes batches of {} only, usually because the size became a constant when it was "
                      "traced: use x.flatten(1) or x.shape[0] instead of a number in its forward, or torch.jit.script",
                      name, Counted(count, "image"))};
}

Error NoSingleInput(torch::jit::Module& module, const std::string& name, const std::vector<std::int64_t>& input_shape,
                    const std::string& reason) {
  std::vector<std::int64_t> taken;
  for (const std::int64_t count : {2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 25, 32, 48, 50, 64, 100, 128, 200, 256}) {
    if (TakesBatch(module, input_shape, count)) taken.push_back(count);
    if (taken.size() > 1) break;
  }
  if (taken.size() == 1) return OneBatchOnly(name, taken[0]);
  if (taken.size() > 1) {
    return {ErrorKind::kData,
            fmt::format("model '{}' takes several images at once but not a single one: {}", name, reason)};
  }
  return {ErrorKind::kData,
          fmt::format("model '{}' does not take an input of shape {}: {}", name, BracketedShape(input_shape), reason)};
}

}  // namespace bitplan
