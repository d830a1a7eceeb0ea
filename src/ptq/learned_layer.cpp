#include "ptq/learned_layer.h"

#include <vector>

namespace bitplan {
namespace {

constexpr double kBegin = 0.3;        // of a level: how far a latent begins from its code, at most
constexpr double kBeyond = 0.49;      // of a level: how far it may lie beyond the last one
constexpr double kLeastFactor = 0.1;  // of a scale

}  // namespace

LearnedLayer LearnedLayer::Of(const Network& network, const torch::jit::Module& module, std::size_t index,
                              const QuantizedTensor& weight) {
  const Layer& layer = network.layers[index];
  LearnedLayer learned;
  learned.index = index;
  learned.weight = GetTensor(module, layer.parameter);
  learned.scales = weight.scales.clone();
  learned.factor = torch::ones_like(weight.scales);
  learned.offset = weight.offset;
  learned.low = static_cast<float>(-(1 << (weight.bits - 1))) + weight.offset;
  learned.high = static_cast<float>((1 << (weight.bits - 1)) - 1) + weight.offset;
  learned.channel_dim = weight.channel_dim;
  learned.latent = weight.codes.to(torch::kFloat32) + weight.offset;
  const torch::Tensor scales = learned.Along(weight.scales);
  const torch::Tensor wanted = GetTensor(network.module, layer.parameter).detach() / scales;
  const torch::Tensor way = (wanted - learned.latent).clamp(-kBegin, kBegin);
  learned.latent += torch::where(way.isfinite() & (scales != 0.0), way, torch::zeros_like(way));
  return learned;
}

torch::Tensor LearnedLayer::Along(const torch::Tensor& of_channels) const {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(latent.dim()), 1);
  shape[static_cast<std::size_t>(channel_dim)] = of_channels.size(0);
  return of_channels.reshape(shape);
}

void LearnedLayer::Clamp() {
  latent.clamp_(low - kBeyond, high + kBeyond);
  factor.clamp_min_(kLeastFactor);
}

void LearnedLayer::Spread() {
  torch::Tensor gradient = weight.grad();
  latent.mutable_grad().reset();
  factor.mutable_grad().reset();
  if (!gradient.defined()) return;                           // these images did not reach the layer
  if (gradient.is_sparse()) gradient = gradient.to_dense();  // of an embedding that asks for it
  latent.mutable_grad() = gradient * Along(scales * factor);
  torch::Tensor of_scales = gradient * Levels() * Along(scales);
  if (factor.numel() == 1) {
    of_scales = of_scales.sum().reshape({1});
  } else {
    of_scales = of_scales.transpose(0, channel_dim).flatten(1).sum(1);
  }
  factor.mutable_grad() = of_scales;
}

}  // namespace bitplan
