// The mean squared output error of a layer whose weights are rounded, with less arithmetic than its outputs take.
//
// X are the inputs at P positions, [P, n], and e is what rounding changes in the n weights of a channel. The error is
// |X e|^2 / P. With X = Q R, the columns of Q orthonormal, it is also |R e|^2 / P. R is upper triangular and has
// min(P, n) rows. Their squares add up, and no square is negative: a channel whose sum has reached a known bound is
// given up. The strongest inputs come first, so that bad candidates reach it soon.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "quantizers/rounding.h"

namespace bitplan {

class OutputErrors {
 public:
  // `inputs`: float32 [groups, positions, n]; `rows`: float32 [channels, n], the weights of one output channel each;
  // groups divide the channels.
  OutputErrors(const torch::Tensor& inputs, const torch::Tensor& rows);

  // One candidate. To be used again for the next one: its tensors keep their memory.
  struct Tried {
    torch::Tensor errors;   // float64 [channels], mean squared output error; of a channel given up at least its bound
    torch::Tensor outputs;  // float32 [channels, min(P, n)], R e / sqrt(P); of a channel given up anything
    torch::Tensor changes, products;  // scratch
  };
  // Of weights rounded with these scales, float32 [channels]. `bound`: float64 [channels], or undefined: none is given
  // up.
  void Try(const torch::Tensor& scales, rounding::CodeRange range, const torch::Tensor& bound, Tried& tried) const;

  // Copies the outputs of the chosen channels (bool [channels]) to `outputs`, of the same shape.
  void Keep(const Tried& tried, const torch::Tensor& channels, torch::Tensor& outputs) const;

  // Mean products, over the positions, of what a channel puts out with quantized weights and with its own: float64
  // [channels]. `outputs` as in Tried.
  struct Products {
    torch::Tensor with_own, with_itself;
  };
  [[nodiscard]] Products ProductsOf(const torch::Tensor& outputs) const;

  [[nodiscard]] std::int64_t channels() const { return rows_.size(0); }

 private:
  // What rounding changes in the weights, float32 [channels, n], inputs in our order.
  void WriteChanges(const torch::Tensor& scales, rounding::CodeRange range, torch::Tensor& changes) const;
  void TryOneGroup(const torch::Tensor& bound, Tried& tried) const;

  torch::Tensor rows_;       // float32 [channels, n], inputs in our order
  torch::Tensor factor_;     // R / sqrt(P): float32 [groups, min(P, n), n]
  torch::Tensor reference_;  // R w / sqrt(P): float32 [channels, min(P, n)]
};

}  // namespace bitplan
