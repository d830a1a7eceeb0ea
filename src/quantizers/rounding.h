// The inner loops of uniform quantization, on one channel of contiguous float32 weights.
#pragma once

#include <cstdint>

namespace bitplan::rounding {

// Codes of a grid: low, low + 1, ..., high; all integers (grid "zero") or all odd halves (grid "half").
struct CodeRange {
  float low = 0.0F;
  float high = 0.0F;
  float offset = 0.0F;  // 0 or 1/2: codes are integers plus this
};

[[nodiscard]] CodeRange ZeroGrid(int bits);  // -2^(b-1) .. 2^(b-1) - 1
[[nodiscard]] CodeRange HalfGrid(int bits);  // -(2^b - 1)/2 .. (2^b - 1)/2

// sum_i importance_i (scale * code_i - w_i)^2, and the sums that give the best scale for these codes.
struct RoundingSums {
  double error = 0.0;
  double code_weight = 0.0;  // sum importance * code * w
  double code_code = 0.0;    // sum importance * code^2
};

// Whether weights can be divided by the scale: it and its reciprocal are normal numbers. A channel whose scale is none
// (all zeros, or denormal weights that starved) counts as zero; its scale is 0.
[[nodiscard]] bool IsUsableScale(float scale);

// `importance` may be null (all ones). `scale`: usable, may be negative.
[[nodiscard]] RoundingSums Measure(const float* w, const float* importance, std::int64_t n, float scale,
                                   CodeRange range);

// The scale of least error: a search over fractions of the largest magnitude, refined by alternating least squares
// (codes for the scale, scale for the codes) until the codes stay. Returns 0 where no scale is usable.
struct BestScale {
  float scale = 0.0F;
  double error = 0.0;
};
// `negative`: whether scales below zero are tried too.
[[nodiscard]] BestScale FindScale(const float* w, const float* importance, std::int64_t n, CodeRange range,
                                  bool negative = true);

// The smallest |scale| that clips no weight, 0 where that is not usable; negative when the longer side of the grid
// serves the positive weights, where scales below zero are allowed.
[[nodiscard]] float MaxScale(const float* w, std::int64_t n, CodeRange range, bool negative = true);

// The nearest codes without their offset: integers of the grid's width (QuantizedTensor::codes); zeros where the scale
// is not usable.
void Encode(const float* w, std::int64_t n, float scale, CodeRange range, std::int8_t* codes);

// out_i = scale * (codes_i + offset): the only place where codes become weights.
void Decode(const std::int8_t* codes, std::int64_t n, float scale, float offset, float* out);

// Both at once: the nearest weights.
void Round(const float* w, std::int64_t n, float scale, CodeRange range, float* out);

// sum_i g_i (scale * code(w_i) - w_i).
[[nodiscard]] double ErrorDot(const float* w, const float* g, std::int64_t n, float scale, CodeRange range);

}  // namespace bitplan::rounding
