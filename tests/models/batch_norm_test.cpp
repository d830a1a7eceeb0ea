#include "bitplan/models/batch_norm.h"

#include <torch/types.h>

#include "support/catch_torch.h"

namespace bitplan {
namespace {

TEST_CASE("statistics of a batch norm's input are mean and biased variance of every channel, in any shape") {
  torch::manual_seed(5);
  const std::vector<std::vector<std::int64_t>> shapes = {
      {40, 3}, {40, 3, 7}, {40, 3, 5, 6}, {1, 3, 5, 6}, {3000, 3, 16, 32}};
  for (const auto& shape : shapes) {
    for (const double shift : {0.0, 300.0}) {  // a mean far from zero must not swallow the variance
      const torch::Tensor input = torch::randn(shape) + shift;
      std::vector<std::int64_t> dims = {0};
      for (std::int64_t d = 2; d < input.dim(); ++d) dims.push_back(d);
      const auto [var, mean] = torch::var_mean(input.to(torch::kFloat64), dims, /*unbiased=*/false);
      const ChannelStatistics statistics = StatisticsOf(input);
      INFO(input.sizes() << " around " << shift);
      CHECK(torch::allclose(statistics.mean.to(torch::kFloat64), mean, 1e-5, 1e-6));
      CHECK(torch::allclose(statistics.var.to(torch::kFloat64), var, 1e-3, 1e-6));
      // An input that does not lie in order, as a transposed one, too.
      if (input.dim() < 4) continue;
      const torch::Tensor turned = input.transpose(2, 3);
      CHECK(torch::allclose(StatisticsOf(turned).var.to(torch::kFloat64), var, 1e-3, 1e-6));
    }
  }
}

}  // namespace
}  // namespace bitplan
