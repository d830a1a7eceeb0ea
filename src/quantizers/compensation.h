// Rounding one after another: what rounding does to a weight's outputs is taken back by the weights not yet rounded.
//
// For inputs x with second moments H = E[x x^T] the mean squared error of an output is e^T H e, e = Q(w) - w. The
// weights of a row are rounded in the order of their inputs' power; after each, the rest moves to the least e^T H e
// that the rounded ones leave possible (Frantar et al. 2022, "GPTQ"; the second-order surgery of Hassibi and Stork
// 1993). Then the scale of every row is fitted again to the codes found: s = w^T H c / c^T H c.
//
// The moments are shrunk towards their diagonal first, (1 - a) H + a diag(H): moments of few samples claim correlations
// that are not there. At a = 1 this is rounding to the nearest level, with the scale of least output error.
#pragma once

#include <torch/types.h>

#include "quantizers/rounding.h"

namespace bitplan::rounding {

// Q(w), float32 [rows, n]. `rows`: float32 [rows, n]; `scales`: [rows], or [1] for one scale that all share;
// `moments`: float32 [groups, n, n], symmetric, groups dividing the rows: rows of one group see the same inputs.
[[nodiscard]] torch::Tensor RoundCompensated(const torch::Tensor& rows, const torch::Tensor& scales, CodeRange range,
                                             const torch::Tensor& moments, double shrinkage);

// sum over rows of e^T H e, for e = values - rows.
[[nodiscard]] double OutputError(const torch::Tensor& rows, const torch::Tensor& values, const torch::Tensor& moments);

}  // namespace bitplan::rounding
