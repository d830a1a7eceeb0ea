// Statistics of what a batch norm sees, and how a change of them is carried over to the trained ones.
#pragma once

#include <torch/types.h>

#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

struct ChannelStatistics {
  torch::Tensor mean, var;  // float32 [channels]; the variance is the biased one, as evaluation uses it
};

// Over all images and positions of an input [n, C, ...].
[[nodiscard]] ChannelStatistics StatisticsOf(const torch::Tensor& input);

// Moves the change from `reference` (float network) to `now` (quantized network, the same images) into `trained`:
//   var  <- var * var_now / var_ref,      mean <- mean_now + (mean - mean_ref) * sqrt(var_now / var_ref):
// what the trained statistics differ from those of these images stays, in units of the channel's deviation. A scale and
// a shift of the channel are undone exactly, and a channel that has become constant puts out its batch norm's bias. A
// channel that was constant before, or whose variance was no normal float32, keeps it and moves its mean along.
[[nodiscard]] ChannelStatistics Transferred(const ChannelStatistics& trained, const ChannelStatistics& now,
                                            const ChannelStatistics& reference);

// Whether the outputs of a layer go into a batch norm of the network as they are: [layers]. Finds out by one pass.
[[nodiscard]] std::vector<bool> FeedsBatchNorm(const Network& network);

}  // namespace bitplan
