// What learned rounding moves: the codes and scales of a layer.
#pragma once

#include <torch/types.h>

#include <cstddef>

#include "bitplan/models/network.h"
#include "bitplan/quantizers/quantized_tensor.h"

namespace bitplan {

// A layer whose codes are learned.
struct LearnedLayer {
  std::size_t index = 0;
  torch::Tensor weight;  // what the module multiplies by, a leaf
  torch::Tensor latent;  // in levels, shape of the weight
  torch::Tensor factor;  // of the scales, [channels] or [1]
  torch::Tensor scales;  // the same, before
  float offset = 0.0F, low = 0.0F, high = 0.0F;
  int channel_dim = 0;

  // Layer `index` of the network, whose weight in `module`, a clone, is `weight`: latents begin at most 0.3 of a level
  // from their codes, towards the float weight.
  static LearnedLayer Of(const Network& network, const torch::jit::Module& module, std::size_t index,
                         const QuantizedTensor& weight);

  // [channels] or [1] as a factor of the weight.
  [[nodiscard]] torch::Tensor Along(const torch::Tensor& of_channels) const;
  [[nodiscard]] torch::Tensor Levels() const { return ((latent - offset).round() + offset).clamp(low, high); }
  void Write() const { weight.copy_(Levels().mul_(Along(scales * factor))); }
  // Keeps latents within half a level of the grid, and factors above a tenth.
  void Clamp();
  // From the gradient of the weight to those of latent and factor.
  void Spread();
};

}  // namespace bitplan
