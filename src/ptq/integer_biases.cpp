#include "ptq/integer_biases.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr double kLargestBias = 1 << 20;  // steps; beyond, one of them is less than float32 can say
constexpr double kMostOfGamma = 0.05;     // of the deviation that a batch norm gives its channel

struct NormBehind {
  std::size_t index;
  double eps;
};

// Of every convolution the batch norm that its outputs go into as they are. By one pass of zeros.
std::vector<std::optional<NormBehind>> NormsBehind(const Network& network, const torch::jit::Module& module) {
  struct Output {
    torch::Tensor tensor;
    std::uint32_t version;  // another one once something was written into it
  };
  std::vector<std::optional<NormBehind>> found(network.layers.size());
  std::vector<std::optional<Output>> outputs(network.layers.size());
  TapHandlers handlers;
  handlers.on_layer_output = [&](std::size_t layer, const torch::Tensor& output) {
    const Layer& described = network.layers[layer];
    const bool folds = described.is_convolution() && !described.kind.starts_with("conv_transpose");
    if (folds) outputs[layer] = Output{output, static_cast<std::uint32_t>(output._version())};
  };
  handlers.on_batch_norm_output = [&](std::size_t norm, const torch::Tensor& input, const torch::Tensor&, double eps) {
    for (std::size_t l = 0; l < outputs.size(); ++l) {
      const bool same = outputs[l] && outputs[l]->tensor.unsafeGetTensorImpl() == input.unsafeGetTensorImpl() &&
                        outputs[l]->version == input._version();
      if (same) found[l] = NormBehind{norm, eps};
    }
  };
  std::vector<std::int64_t> shape{2};
  shape.insert(shape.end(), network.input_shape.begin(), network.input_shape.end());
  const Tap tap(network, module, std::move(handlers));
  (void)RunForward(module, torch::zeros(shape, network.input_type));
  return found;
}

// Moves `bias` [channels] so that before + bias is a whole number of steps, where all channels can: by at most `most`,
// if it is defined. float64.
void MoveToSteps(const torch::Tensor& bias, const torch::Tensor& before, const torch::Tensor& steps,
                 const torch::Tensor& most) {
  const torch::Tensor now = bias.to(torch::kFloat64), counts = ((before + now) / steps).round();
  const torch::Tensor moved = counts * steps - before;
  // A channel that its batch norm all but mutes has steps so small that its bias is as good as whole as it is.
  const torch::Tensor whole = counts.abs().ge(kLargestBias) | (now / steps).abs().ge(kLargestBias);
  torch::Tensor held = counts.isfinite();
  if (most.defined()) held = held & (whole | (moved - now).abs().le(most));
  if (held.all().item<bool>()) bias.copy_(torch::where(whole, now, moved));
}

// The parameter or buffer of one number for every channel; undefined where there is none.
torch::Tensor OfChannels(const std::map<std::string, torch::Tensor>& tensors, const std::string& name,
                         std::int64_t channels) {
  const auto found = tensors.find(name);
  const bool fits = found != tensors.end() && found->second.dim() == 1 && found->second.numel() == channels;
  return fits ? found->second : torch::Tensor();
}

}  // namespace

void RoundBiases(const Network& network, AppliedPlan& applied) {
  if (applied.activations.empty()) return;
  const torch::NoGradGuard no_grad;
  const auto norms = NormsBehind(network, applied.module);
  RestoreChangedByForward(network, applied.module);
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& parameter : applied.module.named_parameters()) tensors[parameter.name] = parameter.value;
  for (const auto& buffer : applied.module.named_buffers()) tensors.try_emplace(buffer.name, buffer.value);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const Layer& layer = network.layers[l];
    const QuantizedTensor& weight = applied.weights[l];
    const AffineQuantizer& input = applied.activations[l];
    if (!weight.defined() || weight.bits < 1 || input.bits > 8 || layer.uses > 1 || !layer.puts_out_products())
      continue;
    const std::int64_t channels = layer.output_channels();
    torch::Tensor scales = weight.scales.to(torch::kFloat64);
    if (scales.numel() == 1) scales = scales.expand({channels});
    if (weight.offset != 0.0F) scales = scales / 2;  // stored as odd numbers of half a step
    const torch::Tensor own = layer.bias.empty() ? torch::Tensor() : OfChannels(tensors, layer.bias, channels);
    if (!norms[l]) {
      const bool zeros = input.scale == 1.0F;  // what a tensor of zeros gets
      if (own.defined() && !zeros) {
        MoveToSteps(own, torch::zeros_like(scales), static_cast<double>(input.scale) * scales, {});
      }
      continue;
    }
    const BatchNorm& norm = network.batch_norms[norms[l]->index];
    const torch::Tensor gamma = OfChannels(tensors, norm.name + ".weight", channels);
    const torch::Tensor beta = OfChannels(tensors, norm.name + ".bias", channels);
    if (!gamma.defined() || !beta.defined()) continue;
    const torch::Tensor variance = tensors.at(norm.running_var).to(torch::kFloat64);
    const torch::Tensor slope = gamma.to(torch::kFloat64) * (variance + norms[l]->eps).rsqrt();
    torch::Tensor mean = tensors.at(norm.running_mean).to(torch::kFloat64);
    if (own.defined()) mean = mean - own.to(torch::kFloat64);
    // As the exporter has them: float32 scales of the folded weights, and their product with that of the input.
    const torch::Tensor folded = (scales * slope).to(torch::kFloat32);
    const torch::Tensor steps = (folded * input.scale).to(torch::kFloat64);
    MoveToSteps(beta, -mean * slope, steps, kMostOfGamma * gamma.abs().to(torch::kFloat64));
  }
}

}  // namespace bitplan
