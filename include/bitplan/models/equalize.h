// Evens out the ranges of channels between layers: a tensor of activations has one scale, so channels of small values
// waste its levels. Where only a batch norm, a layer norm or a layer makes a tensor, and only layers read it, channel c
// can be divided by s_c there and the weights that read it multiplied by s_c: the network computes the same.
//
//   s_c = r_c^share / w_c^(1 - share), times what makes the mean of log s zero; r_c the largest |value| of the channel
//   on training images, w_c the largest weight that reads it.
//
// Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (share 0.5); Xiao et al.
// 2023, "SmoothQuant" (any share). Between the two ends may stand what keeps factors of channels: relu, leaky relu,
// pools, dropout, flattening.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/models/network.h"

namespace bitplan {

struct EqualizedTensor {
  std::string made_by;               // attribute path of what makes it: "layer1.0.bn1"
  std::vector<std::string> read_by;  // names of layers
  double before = 0.0, after = 0.0;  // largest range of a channel over the geometric mean of all
};

// Makes network.module a clone with other weights that computes the same. `images`: float32 normalized [N, ...].
// `share` in (0, 1]. A tensor whose factors change an answer by more than 1e-4 of the largest, as float32 has it, is
// left as it was. Returns those that were changed.
std::vector<EqualizedTensor> EqualizeRanges(Network& network, const torch::Tensor& images, double share,
                                            ProgressSink& progress);

}  // namespace bitplan
