// Symmetric uniform quantizers for weights.
//
// At b bits a weight is written as scale * code (quantized_tensor.h), the scale one float32 per output channel (or per
// tensor), the 2^b codes being either
//   grid "zero":  integers, with a level at zero: -2^(b-1) .. 2^(b-1) - 1; the scale may be negative, so that the
//   longer
//                 side of the grid lies where the channel needs it;
//   grid "half":  odd multiples of 1/2: +-1/2, +-3/2, ..., +-(2^b - 1)/2: no zero, fully symmetric.
// 1 bit is grid "half" with the (weighted) mean magnitude as half the scale: sign(w) * mean|w|. 0 bits is zero.
//
// The scale is chosen by `range`: "max" (the smallest that clips no weight), "mse" (least squared error), "posterior"
// (least squared error weighted with the likelihood information, sum_i Lambda_i (Q(w_i) - w_i)^2), "output" (least
// squared error of the layer's outputs on training images), "auto" (of a layer "mse" or "output", whichever has the
// smaller output error at positions that did not choose the scales). The least error is found by a search over scales
// and then alternating least squares; at two bits the usual grid {-2, -1, 0, 1} can do more harm than one bit, which is
// why the grid is chosen by the error too. From five bits on, and without inputs, "output" and "auto" are "mse".
//
// Grids and scales are those that options.limits holds: of a consumer without negative scales all are >= 0, for one
// with scales in float16 they are numbers of that type.
#pragma once

#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/quantizers/quantized_tensor.h"

namespace bitplan {

// How the levels of a layer were chosen, as a plan records it.
struct LevelChoice {
  std::string grid = "auto";
  std::string range = "mse";

  bool operator==(const LevelChoice& other) const = default;
};

// What training images say about a layer. Undefined what no range asks for.
struct QuantizerEvidence {
  torch::Tensor importance;  // float32, shape of the weight: likelihood information; range "posterior"
  // float32 [groups, positions, n], n weights per output channel (models/layer_inputs.h); ranges "output" and "auto".
  // Without their mean where a correction takes the mean of the outputs out anyway.
  torch::Tensor inputs;
};

struct QuantizedWeight {
  int bits = 0;
  std::string grid = "zero";  // which grid was used: zero, half
  std::string range = "mse";  // which range: max, mse, posterior, output
  torch::Tensor scales;       // float32 [channels] or [1]; zeros at 0 bits
  // sum_i importance_i (Q(w_i) - w_i)^2, importance 1 unless the range is "posterior"; ranges "output" and "auto" of a
  // layer with inputs: mean squared output error, summed over the channels, at the positions that choose.
  double error = 0.0;
};

// What a layer meets and what it should put out, over positions of images (models/layer_inputs.h): x the n inputs that
// an output channel's weights are multiplied with, y the outputs wanted. Groups divide the channels.
struct OutputMoments {
  torch::Tensor inputs;   // E[x x^T], float32 [groups, n, n]
  torch::Tensor targets;  // E[y x^T], float32 [channels, n]
  double power = 0.0;     // E|y|^2, summed over the channels
};

class OutputErrors;  // src/quantizers/output_errors.h

// A weight laid out for quantization: one contiguous row per scale. Made once, quantized at many widths.
class WeightRows {
 public:
  // `weight`: float32, any shape; `output_dim`: which dimension counts the output channels;
  // Error(kUsage) for an unknown granularity or range, or range "posterior" without importance.
  WeightRows(const torch::Tensor& weight, int output_dim, const QuantizerOptions& options,
             QuantizerEvidence evidence = {});

  // Chooses the scales (and the grid, when `grid` is "auto": at 2 and 3 bits the one with the smaller error) for
  // `bits` in 0..8, by the range of the options or by that of `choice`. Rows are shared among all threads.
  [[nodiscard]] QuantizedWeight Fit(int bits, const std::string& grid) const;
  [[nodiscard]] QuantizedWeight Fit(int bits, const LevelChoice& choice) const;

  // The nearest levels.
  [[nodiscard]] QuantizedTensor Quantized(const QuantizedWeight& fit) const;
  // Q(w), shape of the weight: its values.
  [[nodiscard]] torch::Tensor Values(const QuantizedWeight& fit) const { return Quantized(fit).Values(); }

  // The same grid, but rounded so that errors cancel in the layer's outputs (src/quantizers/compensation.h), with the
  // scales fitted again. `shrinkage` 0..1 moves the moments of the inputs towards their diagonal, at 1 every weight
  // takes its nearest level.
  [[nodiscard]] QuantizedTensor Compensated(const QuantizedWeight& fit, const OutputMoments& moments,
                                            double shrinkage) const;
  // With the damping of the target (0.01, 0.1 or 1) and the shrinkage (1, 0.5, 0.2 or 0.05) that give the least output
  // error under `held_out`, moments of other inputs, or Q(w) as it is when none gives less. What was chosen is then
  // done by all inputs: `held_share` of their moments are the held out ones; 0: as it was chosen.
  [[nodiscard]] QuantizedTensor Compensated(const QuantizedWeight& fit, const OutputMoments& moments,
                                            const OutputMoments& held_out, double held_share = 0.0) const;
  // The mean squared difference of the layer's outputs, with `values` for weights, from those wanted, summed over the
  // channels.
  [[nodiscard]] double OutputError(const torch::Tensor& values, const OutputMoments& moments) const;
  // Moments of outputs y = w x: what this very weight computes from the same inputs. `inputs`: E[x x^T].
  [[nodiscard]] OutputMoments OwnOutputs(const torch::Tensor& inputs) const;

  // sum_i g_i (Q(w_i) - w_i) of every fit; `gradient` has the shape of the weight.
  [[nodiscard]] std::vector<double> ErrorDots(const std::vector<QuantizedWeight>& fits,
                                              const torch::Tensor& gradient) const;

  // R of every row, max |w|: float32 [rows].
  [[nodiscard]] torch::Tensor Range() const;
  // The same spread over the shape of the weight (a view).
  [[nodiscard]] torch::Tensor RangeLike() const;

  [[nodiscard]] std::int64_t rows() const { return rows_.size(0); }

 private:
  [[nodiscard]] QuantizedWeight FitGrid(int bits, const LevelChoice& choice) const;
  [[nodiscard]] QuantizedWeight FitWeights(int bits, const LevelChoice& choice) const;
  [[nodiscard]] QuantizedWeight FitOutputs(int bits, const std::string& grid) const;
  [[nodiscard]] torch::Tensor RowValues(const QuantizedWeight& fit) const;
  // One row for every output channel, whatever the rows are for: float32 [channels, n].
  [[nodiscard]] torch::Tensor ChannelRows(const torch::Tensor& rows, const OutputMoments& moments) const;
  // The weights in float that rounding aims at, [channels, n].
  [[nodiscard]] torch::Tensor Target(const OutputMoments& moments, double damping) const;
  // Scales for `target` ([channels, n]) on the grid of `fit`: of a few, the ones of least output error.
  [[nodiscard]] torch::Tensor ScalesFor(const torch::Tensor& target, const QuantizedWeight& fit,
                                        const OutputMoments& moments) const;
  [[nodiscard]] QuantizedTensor RoundedTo(const torch::Tensor& target, const torch::Tensor& scales,
                                          const QuantizedWeight& fit, const OutputMoments& moments,
                                          double shrinkage) const;
  // Output errors at the positions that scales are fitted to; made when it is first asked for.
  [[nodiscard]] const OutputErrors& FittedErrors() const;
  // Mean squared output error of every scale's channels: float64 [rows].
  [[nodiscard]] torch::Tensor RowOutputErrors(const torch::Tensor& row_values, const torch::Tensor& inputs) const;
  [[nodiscard]] torch::Tensor ToRows(const torch::Tensor& like_weight) const;
  [[nodiscard]] torch::Tensor FromRows(const torch::Tensor& rows) const;

  std::vector<std::int64_t> shape_;
  int output_dim_;
  bool per_channel_;
  std::string range_;
  ConsumerLimits limits_;
  torch::Tensor rows_;               // float32 [rows, weights per row]
  torch::Tensor importance_;         // the same, or undefined
  torch::Tensor fitted_, choosing_;  // inputs that scales are fitted to, and that choose between fits; or undefined
  mutable std::shared_ptr<const OutputErrors> output_errors_;
};

}  // namespace bitplan
