#include "bitplan/models/batch_norm.h"

#include <torch/torch.h>

namespace bitplan {

ChannelStatistics StatisticsOf(const torch::Tensor& input) {
  const torch::NoGradGuard no_grad;
  std::vector<std::int64_t> dims = {0};
  for (std::int64_t d = 2; d < input.dim(); ++d) dims.push_back(d);
  const auto [var, mean] = torch::var_mean(input, dims, /*unbiased=*/false);
  return {mean, var};
}

ChannelStatistics Transferred(const ChannelStatistics& trained, const ChannelStatistics& now,
                              const ChannelStatistics& reference) {
  const torch::Tensor ratio = torch::where(reference.var > 0, now.var / reference.var, torch::ones_like(now.var));
  return {now.mean + (trained.mean - reference.mean) * ratio.sqrt(), trained.var * ratio};
}

}  // namespace bitplan
