// Input statistics of the batch norms of a network over all images, pooled from minibatches.
#pragma once

#include <vector>

#include "bitplan/models/batch_norm.h"

namespace bitplan {

class StatisticsPool {
 public:
  explicit StatisticsPool(std::size_t batch_norms) : sums_(batch_norms) {}

  // `share`: of the images that this minibatch holds.
  void Add(std::size_t index, const torch::Tensor& input, double share) {
    const ChannelStatistics batch = StatisticsOf(input);
    const torch::Tensor square = batch.var + batch.mean.square();
    ChannelStatistics& sum = sums_[index];
    sum.mean = sum.mean.defined() ? sum.mean.add_(batch.mean, share) : batch.mean * share;
    sum.var = sum.var.defined() ? sum.var.add_(square, share) : square * share;
  }

  [[nodiscard]] std::vector<ChannelStatistics> Take() {
    for (ChannelStatistics& sum : sums_) {
      if (sum.mean.defined()) sum.var.sub_(sum.mean.square()).clamp_min_(0.0);
    }
    return std::move(sums_);
  }

 private:
  std::vector<ChannelStatistics> sums_;  // mean and mean of the squares until Take()
};

}  // namespace bitplan
