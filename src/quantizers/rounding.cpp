#include "quantizers/rounding.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantizers/vectorized.h"

namespace bitplan::rounding {
namespace {

constexpr std::int64_t kBlock = 4096;  // float sums within a block, double sums across
constexpr double kNoBound = std::numeric_limits<double>::infinity();
constexpr std::int64_t kPart = 256;  // weights between two looks at whether a scale can still be the best
constexpr int kCandidates = 48;
constexpr float kFewLevels = 4.0F;  // magnitude of the longest code of a grid with few levels, at most 3 bits
constexpr int kRefinements = 8;

struct FloatSums {
  float error, code_weight, code_code;
};

BITPLAN_VECTORIZED FloatSums MeasureBlock(const float* w, std::int64_t n, float scale, float inverse, float low,
                                          float high, float offset) {
  float error = 0.0F, code_weight = 0.0F, code_code = 0.0F;
#pragma omp simd reduction(+ : error, code_weight, code_code)
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = std::min(std::max(__builtin_rintf(w[i] * inverse - offset) + offset, low), high);
    const float difference = code * scale - w[i];
    error += difference * difference;
    code_weight += code * w[i];
    code_code += code * code;
  }
  return {error, code_weight, code_code};
}

BITPLAN_VECTORIZED FloatSums MeasureBlockWeighted(const float* w, const float* importance, std::int64_t n, float scale,
                                                  float inverse, float low, float high, float offset) {
  float error = 0.0F, code_weight = 0.0F, code_code = 0.0F;
#pragma omp simd reduction(+ : error, code_weight, code_code)
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = std::min(std::max(__builtin_rintf(w[i] * inverse - offset) + offset, low), high);
    const float difference = code * scale - w[i];
    error += importance[i] * difference * difference;
    code_weight += importance[i] * code * w[i];
    code_code += importance[i] * code * code;
  }
  return {error, code_weight, code_code};
}

// Squared errors of a scale and of its negative; the codes of the negative one are those of the mirrored grid.
struct MirroredErrors {
  double as_is = 0.0, flipped = 0.0;
};

BITPLAN_VECTORIZED MirroredErrors ErrorsOfPart(const float* w, std::int64_t n, float scale, float inverse, float low,
                                               float high, float offset) {
  float as_is = 0.0F, flipped = 0.0F;
#pragma omp simd reduction(+ : as_is, flipped)
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = __builtin_rintf(w[i] * inverse - offset) + offset;
    const float one = std::min(std::max(code, low), high) * scale - w[i];
    const float other = std::min(std::max(code, -high), -low) * scale - w[i];
    as_is += one * one;
    flipped += other * other;
  }
  return {as_is, flipped};
}

BITPLAN_VECTORIZED MirroredErrors ErrorsOfPartWeighted(const float* w, const float* importance, std::int64_t n,
                                                       float scale, float inverse, float low, float high,
                                                       float offset) {
  float as_is = 0.0F, flipped = 0.0F;
#pragma omp simd reduction(+ : as_is, flipped)
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = __builtin_rintf(w[i] * inverse - offset) + offset;
    const float one = std::min(std::max(code, low), high) * scale - w[i];
    const float other = std::min(std::max(code, -high), -low) * scale - w[i];
    as_is += importance[i] * one * one;
    flipped += importance[i] * other * other;
  }
  return {as_is, flipped};
}

// Given up where both have passed `bound`.
MirroredErrors ErrorsUpTo(double bound, const float* w, const float* importance, std::int64_t n, float scale,
                          CodeRange range) {
  MirroredErrors errors;
  const float inverse = 1.0F / scale;
  for (std::int64_t begin = 0; begin < n; begin += kPart) {
    const std::int64_t size = std::min(kPart, n - begin);
    const MirroredErrors part = importance == nullptr
                                    ? ErrorsOfPart(w + begin, size, scale, inverse, range.low, range.high, range.offset)
                                    : ErrorsOfPartWeighted(w + begin, importance + begin, size, scale, inverse,
                                                           range.low, range.high, range.offset);
    errors.as_is += part.as_is;
    errors.flipped += part.flipped;
    if (!(errors.as_is <= bound || errors.flipped <= bound)) break;
  }
  return errors;
}

BITPLAN_VECTORIZED void EncodeBlock(const float* w, std::int64_t n, float inverse, float low, float high, float offset,
                                    std::int8_t* codes) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = std::min(std::max(__builtin_rintf(w[i] * inverse - offset), low), high);
    codes[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(code));
  }
}

// What a code means, here and nowhere else.
BITPLAN_VECTORIZED void DecodeBlock(const std::int8_t* codes, std::int64_t n, float scale, float offset, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = scale * (static_cast<float>(codes[i]) + offset);
}

BITPLAN_VECTORIZED float ErrorDotBlock(const float* w, const float* g, std::int64_t n, float scale, float inverse,
                                       float low, float high, float offset) {
  float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = std::min(std::max(__builtin_rintf(w[i] * inverse - offset) + offset, low), high);
    sum += g[i] * (code * scale - w[i]);
  }
  return sum;
}

BITPLAN_VECTORIZED float NegativeDotBlock(const float* w, const float* g, std::int64_t n) {
  float sum = 0.0F;
#pragma omp simd reduction(- : sum)
  for (std::int64_t i = 0; i < n; ++i) sum -= g[i] * w[i];
  return sum;
}

float LargestMagnitude(const float* w, std::int64_t n) {
  float largest = 0.0F;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(w[i]));
  return largest;
}

}  // namespace

bool IsUsableScale(float scale) { return std::isnormal(scale) && std::isnormal(1.0F / scale); }

CodeRange ZeroGrid(int bits) {
  const auto half = static_cast<float>(1 << (bits - 1));
  return {-half, half - 1.0F, 0.0F};
}

CodeRange HalfGrid(int bits) {
  const float high = static_cast<float>((1 << bits) - 1) / 2.0F;
  return {-high, high, 0.5F};
}

RoundingSums Measure(const float* w, const float* importance, std::int64_t n, float scale, CodeRange range) {
  RoundingSums sums;
  const float inverse = 1.0F / scale;
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, n - begin);
    const FloatSums block = importance == nullptr
                                ? MeasureBlock(w + begin, size, scale, inverse, range.low, range.high, range.offset)
                                : MeasureBlockWeighted(w + begin, importance + begin, size, scale, inverse, range.low,
                                                       range.high, range.offset);
    sums.error += block.error;
    sums.code_weight += block.code_weight;
    sums.code_code += block.code_code;
  }
  return sums;
}

BestScale FindScale(const float* w, const float* importance, std::int64_t n, CodeRange range, bool negative) {
  const float largest = LargestMagnitude(w, n);
  const float reach = std::max(std::abs(range.low), std::abs(range.high));
  if (!IsUsableScale(largest / reach)) return {};
  const bool symmetric = -range.low == range.high;
  const float first = largest / reach;
  BestScale found{first, ErrorsUpTo(kNoBound, w, importance, n, first, range).as_is};
  // Of equal ones the first scale stays, then the narrowest counts, and of two signs the plus.
  const auto take = [&](float scale, double error) {
    if (error < found.error || (error == found.error && found.scale != first)) found = {scale, error};
  };
  const float step = first * 1.1F / kCandidates;
  // From wide to narrow: the best scale is rather wide, and what it reaches cuts the others short.
  for (int k = kCandidates; k >= 1; --k) {
    const float scale = step * static_cast<float>(k);
    if (!IsUsableScale(scale)) continue;
    const MirroredErrors errors = ErrorsUpTo(found.error, w, importance, n, scale, range);
    if (!symmetric && negative) take(-scale, errors.flipped);
    take(scale, errors.as_is);
  }
  // With few levels the best use of {-2, -1, 0, 1} may be the three inner ones: scales up to the largest weight itself.
  const float inner = std::min(std::abs(range.low), std::abs(range.high));
  if (reach <= kFewLevels && inner < reach) {
    for (float scale = step * (kCandidates + 1); scale <= 1.1F * largest / inner; scale += step) {
      const double error = ErrorsUpTo(found.error, w, importance, n, scale, range).as_is;
      if (IsUsableScale(scale) && error < found.error) found = {scale, error};
    }
  }
  RoundingSums best = Measure(w, importance, n, found.scale, range);
  for (int k = 0; k < kRefinements && best.code_code > 0.0; ++k) {
    const auto scale = static_cast<float>(best.code_weight / best.code_code);
    if (!IsUsableScale(scale) || (scale < 0.0F && !negative)) break;
    const RoundingSums sums = Measure(w, importance, n, scale, range);
    if (!(sums.error < best.error)) break;
    best = sums;
    found.scale = scale;
  }
  return {found.scale, best.error};
}

float MaxScale(const float* w, std::int64_t n, CodeRange range, bool negative) {
  float low = 0.0F, high = 0.0F;
  for (std::int64_t i = 0; i < n; ++i) {
    low = std::min(low, w[i]);
    high = std::max(high, w[i]);
  }
  const float as_is = std::max(low / range.low, high / range.high);
  const float flipped = std::max(high / -range.low, -low / range.high);
  const float scale = negative && flipped < as_is ? -flipped : as_is;
  return IsUsableScale(scale) ? scale : 0.0F;
}

void Encode(const float* w, std::int64_t n, float scale, CodeRange range, std::int8_t* codes) {
  if (!IsUsableScale(scale)) {
    std::fill(codes, codes + n, std::int8_t{0});
    return;
  }
  EncodeBlock(w, n, 1.0F / scale, range.low - range.offset, range.high - range.offset, range.offset, codes);
}

void Decode(const std::int8_t* codes, std::int64_t n, float scale, float offset, float* out) {
  DecodeBlock(codes, n, scale, offset, out);
}

void Round(const float* w, std::int64_t n, float scale, CodeRange range, float* out) {
  if (!IsUsableScale(scale)) {
    std::fill(out, out + n, 0.0F);
    return;
  }
  std::int8_t codes[kBlock];
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, n - begin);
    Encode(w + begin, size, scale, range, codes);
    Decode(codes, size, scale, range.offset, out + begin);
  }
}

double ErrorDot(const float* w, const float* g, std::int64_t n, float scale, CodeRange range) {
  double sum = 0.0;
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, n - begin);
    sum += !IsUsableScale(scale)
               ? NegativeDotBlock(w + begin, g + begin, size)
               : ErrorDotBlock(w + begin, g + begin, size, scale, 1.0F / scale, range.low, range.high, range.offset);
  }
  return sum;
}

}  // namespace bitplan::rounding
