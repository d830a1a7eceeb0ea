// Input statistics of the batch norms of a network over all images, pooled from minibatches.
#pragma once

#include <vector>

#include "bitplan/models/batch_norm.h"

namespace bitplan {

class StatisticsPool {
 public:
  explicit StatisticsPool(std::size_t batch_norms) : sums_(batch_norms), shares_(batch_norms, 0.0) {}

  // `share`: of the images that this minibatch holds. A batch norm that only some minibatches reach has the statistics
  // of these; one that none reaches has none (undefined).
  void Add(std::size_t index, const torch::Tensor& input, double share) {
    if (input.numel() == 0) return;
    shares_[index] += share;
    const ChannelStatistics batch = StatisticsOf(input);
    const torch::Tensor square = batch.var + batch.mean.square();
    ChannelStatistics& sum = sums_[index];
    sum.mean = sum.mean.defined() ? sum.mean.add_(batch.mean, share) : batch.mean * share;
    sum.var = sum.var.defined() ? sum.var.add_(square, share) : square * share;
  }

  [[nodiscard]] std::vector<ChannelStatistics> Take() {
    constexpr double kAll = 1.0 - 1e-9;
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      ChannelStatistics& sum = sums_[i];
      if (!sum.mean.defined()) continue;
      if (shares_[i] < kAll) {
        sum.mean.div_(shares_[i]);
        sum.var.div_(shares_[i]);
      }
      sum.var.sub_(sum.mean.square()).clamp_min_(0.0);
    }
    return std::move(sums_);
  }

 private:
  std::vector<ChannelStatistics> sums_;  // mean and mean of the squares until Take()
  std::vector<double> shares_;           // of the images, over the minibatches that reached the batch norm
};

}  // namespace bitplan
