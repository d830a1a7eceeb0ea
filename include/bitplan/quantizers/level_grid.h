// Evenly spaced levels for positive values, on a logarithmic or on a linear scale: the quantizer of standard
// deviations.
//
// The standard deviations of a posterior spread over powers of ten, and what counts is their ratio: half the noise is
// half the noise, however small. Levels that are uniform in log sigma keep every ratio to the same error; levels
// uniform in sigma spend themselves on the largest and round the small ones to one value. The linear scale is there to
// be compared with.
#pragma once

#include <torch/types.h>

#include <string>

namespace bitplan {

// Level k of 2^bits is low + k * step, on the logarithmic scale exp of that (natural logarithm).
struct LevelGrid {
  int bits = 8;                  // 1..8
  std::string scale = "log";     // log, linear
  double low = 0.0, step = 0.0;  // step 0: all values alike
};

// The grid with the least mean squared error of log(values): the mean squared relative error where errors are small, on
// both scales, so that they can be compared. The outermost levels move inwards from the extremes as far as it lowers
// the error. `values`: float32, any shape, all > 0 and finite (Error(kInternal)); scale: log or linear (Error(kUsage)).
[[nodiscard]] LevelGrid FitLevelGrid(const torch::Tensor& values, int bits, const std::string& scale);

// uint8, shape of `values`: the nearest level on the grid's own scale.
[[nodiscard]] torch::Tensor LevelCodes(const torch::Tensor& values, const LevelGrid& grid);
// float32, shape of `codes`.
[[nodiscard]] torch::Tensor LevelValues(const torch::Tensor& codes, const LevelGrid& grid);

}  // namespace bitplan
