#include "models/input_products.h"

#include <algorithm>

namespace bitplan {
namespace {

constexpr std::int64_t kGatheredValues = std::int64_t{1} << 20;
constexpr std::int64_t kMostLeastPositions = 1024;
constexpr std::int64_t kColumnsAtOnce = 256;

}  // namespace

std::vector<torch::Tensor> GatherParts(const Layer& layer, const torch::Tensor& positions) {
  const std::int64_t groups = layer.window ? layer.window->groups : 1, n = layer.weights() / layer.output_channels();
  return positions.split(
      std::max({std::int64_t{1}, kGatheredValues / (groups * n), std::min(kMostLeastPositions, std::max(groups, n))}));
}

void AddProducts(torch::Tensor& sum, const torch::Tensor& left, const torch::Tensor& right) {
  if (!sum.defined()) sum = torch::zeros({left.size(0), left.size(2), right.size(2)});
  sum.baddbmm_(left.transpose(1, 2), right);
}

void AddUpperProducts(torch::Tensor& sum, const torch::Tensor& columns) {
  const std::int64_t n = columns.size(2);
  if (!sum.defined()) sum = torch::zeros({columns.size(0), n, n});
  for (std::int64_t begin = 0; begin < n; begin += kColumnsAtOnce) {
    const std::int64_t end = std::min(begin + kColumnsAtOnce, n);
    sum.slice(1, begin, end)
        .slice(2, begin)
        .baddbmm_(columns.slice(2, begin, end).transpose(1, 2), columns.slice(2, begin));
  }
}

void MirrorUpper(torch::Tensor& sum) {
  sum.triu_();
  sum.add_(sum.triu(1).transpose(1, 2));
}

}  // namespace bitplan
