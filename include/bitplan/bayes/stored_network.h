// A mean-field Gaussian network as it is stored: codes and scales where it is quantized, float32 where it is not. The
// one form from which weights are drawn, predictions made and files written, so that what is measured is what is
// stored.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/bayes/widths.h"
#include "bitplan/models/network.h"
#include "bitplan/quantizers/level_grid.h"

namespace bitplan {

// Evenly spaced levels, one step per output channel or one for all: (code + offset) * step, codes
// -2^(bits-1) .. 2^(bits-1) - 1, offset 0 (a level at zero) or 1/2 (none). A step may be negative.
struct UniformGrid {
  int bits = kFloatBits;  // 32: no grid
  double offset = 0.0;
  torch::Tensor steps;  // float32 [channels] or [1], none of them 0
};

struct StoredLayer {
  // Means: `codes` int8 of the shape of the weight on `mean_grid`, or float32 `mean`.
  UniformGrid mean_grid;
  torch::Tensor mean_codes, mean;
  // Standard deviations: `codes` uint8 on `sigma_grid`, or float32 `sigma`.
  int sigma_bits = kFloatBits;
  LevelGrid sigma_grid;
  torch::Tensor sigma_codes, sigma;
  UniformGrid sample_grid;  // drawn weights are rounded to it

  [[nodiscard]] torch::Tensor Mean(int output_dim) const;  // float32, shape of the weight
  [[nodiscard]] torch::Tensor Sigma() const;
};

struct StoredNetwork {
  Network network;  // the module holds biases, activation steps and whatever else is not a layer's weight
  std::vector<StoredLayer> layers;
  int activation_bits = kFloatBits;     // of the inputs of all layers but the first
  std::vector<bool> activation_signed;  // of every layer's inputs; empty when they are not rounded

  // float32 [layers]: one draw of all weights, mean + sigma * noise, rounded where a layer rounds its samples. The
  // noise of draw t depends on the seed, t and the layer alone: two networks drawn with the same seed meet the same
  // noise.
  [[nodiscard]] std::vector<torch::Tensor> Draw(std::uint64_t seed, std::int64_t t) const;
  // The same for one layer, whose mean and standard deviations the caller keeps.
  [[nodiscard]] torch::Tensor DrawLayer(std::size_t layer, const torch::Tensor& mean, const torch::Tensor& sigma,
                                        std::uint64_t seed, std::int64_t t) const;
};

// Standard normal, shape of the layer's weight.
[[nodiscard]] torch::Tensor DrawNoise(const Layer& layer, std::size_t index, std::uint64_t seed, std::int64_t t);

// values -> nearest level; `steps` is spread over dimension `output_dim`.
[[nodiscard]] torch::Tensor RoundToGrid(const torch::Tensor& values, const UniformGrid& grid, int output_dim);
[[nodiscard]] torch::Tensor GridCodes(const torch::Tensor& values, const UniformGrid& grid, int output_dim);  // int8
[[nodiscard]] torch::Tensor GridValues(const torch::Tensor& codes, const UniformGrid& grid, int output_dim);
// steps [channels] or [1] in a shape that spreads over `dims` dimensions.
[[nodiscard]] torch::Tensor SpreadSteps(const torch::Tensor& steps, int dims, int output_dim);

// What a file of packed parameters holds, in bytes.
struct PackedSize {
  std::int64_t file = 0;        // the whole file, as written
  std::int64_t float_file = 0;  // the same network in the same format, every parameter a float32
};

// Packed file: a header in JSON that names every tensor, then the tensors. Codes take their bits and no more, and are
// deflated where that is shorter (codes of Gaussian values do not fill their bits); everything else is float32. Atomic.
PackedSize SavePacked(const StoredNetwork& stored, const std::filesystem::path& file);

// The network that was packed: `network` gives the graph (without activation quantizers), the file every tensor.
// Error(kNotFound); Error(kData) when the file is damaged, or for another network (says which tensor differs).
[[nodiscard]] StoredNetwork LoadPacked(const std::filesystem::path& file, const Network& network);

}  // namespace bitplan
