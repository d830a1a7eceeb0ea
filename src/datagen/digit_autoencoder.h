// A fully connected variational autoencoder of small grey images (D. Kingma, M. Welling, "Auto-encoding variational
// Bayes", 2014): Bernoulli likelihood of the pixels in 0..1, standard normal prior of the codes.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "bitplan/datagen/ambiguous_digits.h"

namespace bitplan {

class DigitAutoencoder {
 public:
  // Weights normal with variance 2 / fan-in (1 / fan-in where no ReLU follows), zero biases.
  DigitAutoencoder(std::int64_t pixels, const AmbiguousDigitsOptions& options, std::uint64_t seed);

  // Minimizes the negative bound on `images`, uint8 [n, 1, H, W]. Returns its mean over the last epoch, nats per image.
  // Error(kData) when it stops being finite.
  double Train(const torch::Tensor& images, ProgressSink& progress);

  // uint8 [n, 1, H, W] -> means of the codes, float32 [n, code].
  [[nodiscard]] torch::Tensor Encode(const torch::Tensor& images) const;
  // float32 [n, code] -> mean pixels in 0..1, float32 [n, H * W].
  [[nodiscard]] torch::Tensor Decode(const torch::Tensor& codes) const;

 private:
  using Layers = std::vector<torch::Tensor>;  // weight, bias, weight, bias, ...
  static Layers MakeLayers(const std::vector<std::int64_t>& widths, std::uint64_t seed, const char* stream);
  [[nodiscard]] torch::Tensor Loss(const torch::Tensor& pixels, const torch::Tensor& noise) const;

  const AmbiguousDigitsOptions& options_;
  std::uint64_t seed_;
  Layers encoder_, decoder_;  // the encoder's outputs: means, then log variances
};

}  // namespace bitplan
