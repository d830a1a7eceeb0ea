// Rounding one after another: what rounding does to a weight's outputs is taken back by the weights not yet rounded.
//
// The outputs of a layer with weights Q, on inputs x, should be y. With H = E[x x^T] and B = E[y x^T] the mean squared
// error is tr(Q H Q^T) - 2 tr(Q B^T) + E|y|^2. Three steps make it small:
//   target   T = (B + d W) (H + d I)^-1, the weights in float whose outputs come closest to y (ridge regression towards
//            the weights W of the network; d is a share of the mean power of the inputs). T = W when y = W x;
//   rounding the weights of a row are rounded in the order of their inputs' power; after each, the rest moves to the
//            least (Q - T) H (Q - T)^T that the rounded ones leave possible (Frantar et al. 2022, "GPTQ"; the
//            second-order surgery of Hassibi and Stork 1993);
//   descent  one weight of a row after another moves to the level of least error while all others stay, some sweeps;
//            before every sweep the scale of the row is fitted to its codes, s = T H c / c^T H c.
//
// The moments of rounding and descent are shrunk towards their diagonal, (1 - a) H + a diag(H): moments of few samples
// claim correlations that are not there. At a = 1 this is rounding to the nearest level, with the scale of least output
// error.
#pragma once

#include <torch/types.h>

#include "quantizers/rounding.h"

namespace bitplan::rounding {

// T, float32 [rows, n]. `rows`: W, float32 [rows, n]; `inputs`: H, float32 [groups, n, n], symmetric, groups dividing
// the rows: rows of one group see the same inputs; `targets`: B, float32 [rows, n]; `damping`: d in mean input powers.
// W where H is not positive definite.
[[nodiscard]] torch::Tensor TargetRows(const torch::Tensor& rows, const torch::Tensor& inputs,
                                       const torch::Tensor& targets, double damping);

// Rounded rows, Q = scale * (code + offset). A row whose scale cannot be used has scale 0.
struct RoundedRows {
  torch::Tensor codes;   // int8 [rows, n], without the offset of the grid
  torch::Tensor scales;  // float32 [rows], or [1]
};

// Q for the target `rows`, float32 [rows, n]. `scales`: [rows], or [1] for one scale that all share; `moments`: H.
[[nodiscard]] RoundedRows RoundCompensated(const torch::Tensor& rows, const torch::Tensor& scales, CodeRange range,
                                           const torch::Tensor& moments, double shrinkage);

// Of every row (Q - T) H (Q - T)^T, float32 [rows].
[[nodiscard]] torch::Tensor RowErrors(const torch::Tensor& rows, const torch::Tensor& values,
                                      const torch::Tensor& moments);

}  // namespace bitplan::rounding
