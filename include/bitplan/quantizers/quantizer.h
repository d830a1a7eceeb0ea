// Symmetric uniform quantizers for weights.
//
// At b bits a channel is written as scale * code, the 2^b codes being either
//   grid "zero":  a, a + 1, ..., with a level at zero: -2^(b-1) .. 2^(b-1) - 1; the scale may be negative, so the longer
//                 side of the grid lies where the channel needs it;
//   grid "half":  odd multiples of 1/2: +-1/2, +-3/2, ..., +-(2^b - 1)/2: no zero, fully symmetric.
// 1 bit is grid "half": scale/2 * sign(w), the scale twice the (weighted) mean magnitude; 0 bits is zero.
//
// The scale of a channel is chosen by `range`: "max" (no weight is clipped), "mse" (least squared error), "posterior"
// (least squared error weighted with the likelihood information, sum_i Lambda_i (Q(w_i) - w_i)^2). The least error is
// found by a search over scales refined by alternating least squares, exact to the last codes' local optimum.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan {

struct QuantizedWeight {
  torch::Tensor values;       // float32, shape of the weight
  torch::Tensor scales;       // float32 [channels] or [1]
  std::string grid = "zero";  // which grid was used
  double error = 0.0;         // sum_i importance_i (Q(w_i) - w_i)^2, importance 1 unless range is "posterior"
};

// `weight`: float32, any shape; `output_dim`: the dimension of the output channels; `bits`: 0..8 (16 and 32 return the
// weight itself); `importance`: same shape as weight, or undefined; used by range "posterior" only.
// `grid`: "zero", "half", or "auto" (at 2 and 3 bits the one with the smaller error, else zero).
[[nodiscard]] QuantizedWeight Quantize(const torch::Tensor& weight, int output_dim, int bits,
                                       const QuantizerOptions& options, const torch::Tensor& importance,
                                       const std::string& grid);

// Range R of every channel (half the width of its grid at high resolution, max |w|): float32 [channels] or [1].
[[nodiscard]] torch::Tensor ChannelRange(const torch::Tensor& weight, int output_dim, const QuantizerOptions& options);

// How many float32 scales the layer stores.
[[nodiscard]] std::int64_t ScaleCount(const torch::Tensor& weight, int output_dim, const QuantizerOptions& options);

}  // namespace bitplan
