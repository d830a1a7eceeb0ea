#include "bitplan/bayes/stored_network.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <utility>

#include "bitplan/core/random.h"

namespace bitplan {

torch::Tensor SpreadSteps(const torch::Tensor& steps, int dims, int output_dim) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(dims), 1);
  if (steps.numel() > 1) shape[static_cast<std::size_t>(output_dim)] = steps.numel();
  return steps.view(shape);
}

torch::Tensor GridCodes(const torch::Tensor& values, const UniformGrid& grid, int output_dim) {
  const torch::Tensor steps = SpreadSteps(grid.steps, static_cast<int>(values.dim()), output_dim);
  const int low = -(1 << (grid.bits - 1)), high = -low - 1;
  return values.div(steps).sub_(grid.offset).round_().clamp_(low, high).to(torch::kInt8);
}

torch::Tensor GridValues(const torch::Tensor& codes, const UniformGrid& grid, int output_dim) {
  return codes.to(torch::kFloat32)
      .add_(grid.offset)
      .mul_(SpreadSteps(grid.steps, static_cast<int>(codes.dim()), output_dim));
}

torch::Tensor RoundToGrid(const torch::Tensor& values, const UniformGrid& grid, int output_dim) {
  const torch::Tensor steps = SpreadSteps(grid.steps, static_cast<int>(values.dim()), output_dim);
  const int low = -(1 << (grid.bits - 1)), high = -low - 1;
  return values.div(steps).sub_(grid.offset).round_().clamp_(low, high).add_(grid.offset).mul_(steps);
}

torch::Tensor StoredLayer::Mean(int output_dim) const {
  return mean.defined() ? mean : GridValues(mean_codes, mean_grid, output_dim);
}

torch::Tensor StoredLayer::Sigma() const { return sigma.defined() ? sigma : LevelValues(sigma_codes, sigma_grid); }

torch::Tensor DrawNoise(const Layer& layer, std::size_t index, std::uint64_t seed, std::int64_t t) {
  const std::string stream = "bayes/draw/" + std::to_string(t) + "/" + std::to_string(index);
  return torch::randn(layer.shape, at::detail::createCPUGenerator(StreamSeed(seed, stream)));
}

std::vector<torch::Tensor> StoredNetwork::Draw(std::uint64_t seed, std::int64_t t) const {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> weights;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    weights.push_back(DrawLayer(l, layers[l].Mean(network.layers[l].output_dim), layers[l].Sigma(), seed, t));
  }
  return weights;
}

torch::Tensor StoredNetwork::DrawLayer(std::size_t layer, const torch::Tensor& mean, const torch::Tensor& sigma,
                                       std::uint64_t seed, std::int64_t t) const {
  torch::Tensor weight = DrawNoise(network.layers[layer], layer, seed, t).mul_(sigma).add_(mean);
  const UniformGrid& grid = layers[layer].sample_grid;
  return grid.bits == kFloatBits ? weight : RoundToGrid(weight, grid, network.layers[layer].output_dim);
}

}  // namespace bitplan
