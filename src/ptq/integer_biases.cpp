#include "ptq/integer_biases.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr double kLargestBias = 1 << 22;  // beyond, float32 rounds a bias by more than a fraction of a step

struct NormBehind {
  std::size_t index;
  double eps;
};

// Of every layer the batch norm that its outputs go into as they are. By one pass of zeros.
std::vector<std::optional<NormBehind>> NormsBehind(const Network& network, const torch::jit::Module& module) {
  std::vector<std::optional<NormBehind>> found(network.layers.size());
  std::vector<torch::Tensor> outputs(network.layers.size());
  TapHandlers handlers;
  handlers.on_layer_output = [&](std::size_t layer, const torch::Tensor& output) { outputs[layer] = output; };
  handlers.on_batch_norm_output = [&](std::size_t norm, const torch::Tensor& input, const torch::Tensor&, double eps) {
    for (std::size_t l = 0; l < outputs.size(); ++l) {
      const bool same = outputs[l].defined() && input.numel() > 0 && outputs[l].data_ptr() == input.data_ptr();
      if (same) found[l] = NormBehind{norm, eps};
    }
  };
  std::vector<std::int64_t> shape{2};
  shape.insert(shape.end(), network.input_shape.begin(), network.input_shape.end());
  const Tap tap(network, module, std::move(handlers));
  (void)RunForward(module, torch::zeros(shape, network.input_type));
  return found;
}

// Moves `bias` [channels] so that before + bias is a whole number of steps. float64.
void MoveToSteps(const torch::Tensor& bias, const torch::Tensor& before, const torch::Tensor& steps) {
  const torch::Tensor now = bias.to(torch::kFloat64), counts = ((before + now) / steps).round();
  const torch::Tensor held = counts.isfinite() & counts.abs().lt(kLargestBias) & ((before + now) / steps).isfinite() &
                             (now / steps).abs().lt(kLargestBias);
  bias.copy_(torch::where(held, counts * steps - before, now));
}

}  // namespace

void RoundBiases(const Network& network, AppliedPlan& applied) {
  if (applied.activations.empty()) return;
  const torch::NoGradGuard no_grad;
  const auto norms = NormsBehind(network, applied.module);
  std::map<std::string, torch::Tensor> parameters;
  for (const auto& parameter : applied.module.named_parameters()) parameters[parameter.name] = parameter.value;
  for (const auto& buffer : applied.module.named_buffers()) parameters.try_emplace(buffer.name, buffer.value);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer& layer = network.layers[l];
    const QuantizedTensor& weight = applied.weights[l];
    const AffineQuantizer& input = applied.activations[l];
    if (!weight.defined() || weight.bits < 1 || input.bits > 8 || layer.uses > 1 || !layer.puts_out_products())
      continue;
    torch::Tensor scales = weight.scales.to(torch::kFloat64);
    if (scales.numel() == 1) scales = scales.expand({layer.output_channels()});
    torch::Tensor bias = layer.bias.empty() ? torch::Tensor() : parameters[layer.bias];
    if (!norms[l]) {
      if (bias.defined()) {
        MoveToSteps(bias, torch::zeros_like(scales), static_cast<double>(input.scale) * scales);
      }
      continue;
    }
    const BatchNorm& norm = network.batch_norms[norms[l]->index];
    const auto gamma = parameters.find(norm.name + ".weight"), beta = parameters.find(norm.name + ".bias");
    if (beta == parameters.end() || beta->second.numel() != scales.numel()) continue;
    const torch::Tensor variance = parameters.at(norm.running_var).to(torch::kFloat64);
    torch::Tensor slope = (variance + norms[l]->eps).rsqrt();
    if (gamma != parameters.end()) slope = slope * gamma->second.to(torch::kFloat64);
    torch::Tensor mean = parameters.at(norm.running_mean).to(torch::kFloat64);
    if (bias.defined()) mean = mean - bias.to(torch::kFloat64);
    // As the exporter has them: float32 scales of the folded weights, and their product with that of the input.
    const torch::Tensor folded = (scales * slope).to(torch::kFloat32);
    const torch::Tensor steps = (folded * input.scale).to(torch::kFloat64);
    MoveToSteps(beta->second, -mean * slope, steps);
  }
}

}  // namespace bitplan
