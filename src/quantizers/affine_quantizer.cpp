#include "bitplan/quantizers/affine_quantizer.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "bitplan/core/error.h"
#include "quantizers/vectorized.h"

namespace bitplan {
namespace {

constexpr double kLeftOut = 1e-4;  // of the values, by percentile
constexpr int kSteps = 80;         // shares of the range that mse tries
constexpr double kLeastShare = 0.02;

// Levels from `low` to `high`, both ends moved to hold zero; `half`: around zero, where there are negative values.
AffineQuantizer Between(double low, double high, int bits, bool half) {
  AffineQuantizer quantizer{.bits = bits, .half = half && low < 0.0};
  const auto highest = static_cast<double>(quantizer.highest());
  low = std::min(low, 0.0);
  high = std::max(high, 0.0);
  if (quantizer.half) {
    high = std::max(-low, high);
    low = -high;
    quantizer.zero_point = (quantizer.highest() + 1) / 2;
  }
  const double step = (high - low) / highest;
  const auto scale = static_cast<float>(step);
  if (!std::isnormal(scale) || !std::isfinite(1.0F / scale)) return quantizer;  // a tensor of zeros
  quantizer.scale = scale;
  if (!quantizer.half) {
    quantizer.zero_point = std::clamp<std::int64_t>(std::llround(-low / step), 0, quantizer.highest());
  }
  return quantizer;
}

// The levels of a quantizer in units of its scale: whole numbers from `low` to `high`, `offset` above them.
struct Levels {
  float low, high, offset;
};

Levels LevelsOf(const AffineQuantizer& quantizer) {
  return {static_cast<float>(-quantizer.zero_point), static_cast<float>(quantizer.highest() - quantizer.zero_point),
          quantizer.half ? 0.5F : 0.0F};
}

inline float Rounded(float value, float inverse, const Levels& levels) {
  return std::min(std::max(__builtin_rintf(value * inverse - levels.offset), levels.low), levels.high) + levels.offset;
}

// Of a part of a tensor.
BITPLAN_VECTORIZED float SquaredErrors(const float* values, std::int64_t count, float scale, Levels levels) {
  const float inverse = 1.0F / scale;
  float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const float error = Rounded(values[i], inverse, levels) * scale - values[i];
    sum += error * error;
  }
  return sum;
}

constexpr std::int64_t kPart = 4096;  // values that stay in the cache for all quantizers; float sums within it

double SquaredError(const AffineQuantizer& quantizer, const torch::Tensor& values) {
  const torch::Tensor flat = values.contiguous();
  const auto* const x = flat.data_ptr<float>();
  const Levels levels = LevelsOf(quantizer);
  double sum = 0.0;
  for (std::int64_t begin = 0; begin < flat.numel(); begin += kPart) {
    sum += SquaredErrors(x + begin, std::min(kPart, flat.numel() - begin), quantizer.scale, levels);
  }
  return sum;
}

// With ever smaller shares of the whole range.
std::vector<AffineQuantizer> Tried(const ActivationSample& sample, int bits, bool half) {
  std::vector<AffineQuantizer> tried;
  for (int step = 0; step < kSteps; ++step) {
    const double share = step == 0 ? 1.0 : std::pow(kLeastShare, static_cast<double>(step) / (kSteps - 1));
    tried.push_back(Between(share * sample.low, share * sample.high, bits, half));
  }
  return tried;
}

// Which of `tried` has the least squared error.
std::ptrdiff_t LeastSquares(const ActivationSample& sample, const std::vector<AffineQuantizer>& tried) {
  std::vector<double> errors(tried.size());
  at::parallel_for(0, kSteps, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t step = first; step < last; ++step) {
      errors[static_cast<std::size_t>(step)] = SquaredError(tried[static_cast<std::size_t>(step)], sample.values);
    }
  });
  return std::min_element(errors.begin(), errors.end()) - errors.begin();
}

// Of the outputs of all layers that read the tensor, relative to their power.
double OutputError(const AffineQuantizer& quantizer, const ActivationSample& sample) {
  double sum = 0.0;
  for (const auto& [layer, reader] : sample.readers) {
    const double power = reader.inputs.matmul(reader.weights).square().sum(torch::kFloat64).item<double>();
    if (!(power > 0.0)) continue;
    const torch::Tensor error = (quantizer.Apply(reader.inputs) - reader.inputs).matmul(reader.weights);
    sum += error.square().sum(torch::kFloat64).item<double>() / power;
  }
  return sum;
}

// Around the one of least squared error: products of matrices cost more than squares.
AffineQuantizer LeastOutputError(const ActivationSample& sample, int bits, bool half) {
  constexpr std::ptrdiff_t kAround = 10, kApart = 2;
  const auto tried = Tried(sample, bits, half);
  const std::ptrdiff_t middle = LeastSquares(sample, tried);
  std::ptrdiff_t best = middle;
  double least = OutputError(tried[static_cast<std::size_t>(middle)], sample);
  for (std::ptrdiff_t step = -kAround; step <= kAround; step += kApart) {
    const std::ptrdiff_t at = middle + step;
    if (step == 0 || at < 0 || at >= std::ssize(tried)) continue;
    const double error = OutputError(tried[static_cast<std::size_t>(at)], sample);
    if (error >= least) continue;
    least = error;
    best = at;
  }
  return tried[static_cast<std::size_t>(best)];
}

AffineQuantizer Percentile(const ActivationSample& sample, int bits, bool half) {
  const torch::Tensor sorted = std::get<0>(sample.values.sort());
  const std::int64_t count = sorted.size(0);
  const auto out = static_cast<std::int64_t>(kLeftOut / 2 * static_cast<double>(count));
  return Between(sorted[out].item<double>(), sorted[count - 1 - out].item<double>(), bits, half);
}

// Of a part of a tensor.
BITPLAN_VECTORIZED float DotOfErrors(const float* values, const float* gradient, std::int64_t count, float scale,
                                     Levels levels) {
  const float inverse = 1.0F / scale;
  float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    sum += gradient[i] * (Rounded(values[i], inverse, levels) * scale - values[i]);
  }
  return sum;
}

// Of every `step` places in a row one, now here, now there: equal distances would meet the same column of every picture
// of a width that they share a factor with.
torch::Tensor OneOfEvery(std::int64_t step, std::int64_t count) {
  std::vector<std::int64_t> places;
  for (std::int64_t begin = 0, i = 0; begin < count; begin += step, ++i) {
    const std::uint64_t scattered = (static_cast<std::uint64_t>(i) * 2654435761U) & 0xFFFFFFFFU;
    const std::int64_t place = begin + static_cast<std::int64_t>((scattered >> 8) % static_cast<std::uint64_t>(step));
    if (place < count) places.push_back(place);
  }
  return torch::tensor(places, torch::kInt64);
}

}  // namespace

torch::Tensor AffineQuantizer::Apply(const torch::Tensor& values) const {
  if (!rounds()) return values;
  if (!half) return torch::fake_quantize_per_tensor_affine(values, scale, zero_point, 0, highest());
  const float middle = 0.5F * scale;
  return torch::fake_quantize_per_tensor_affine(values - middle, scale, zero_point, 0, highest()) + middle;
}

std::vector<double> ErrorDots(const torch::Tensor& values, const torch::Tensor& gradient,
                              const std::vector<AffineQuantizer>& quantizers) {
  const torch::Tensor flat = values.contiguous(), slopes = gradient.contiguous();
  const auto* const x = flat.data_ptr<float>();
  const auto* const g = slopes.data_ptr<float>();
  const std::int64_t count = flat.numel(), parts = (count + kPart - 1) / kPart;
  const auto widths = static_cast<std::int64_t>(quantizers.size());
  std::vector<double> sums(static_cast<std::size_t>(parts * widths));
  at::parallel_for(0, parts, 4, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t part = first; part < last; ++part) {
      const std::int64_t begin = part * kPart, size = std::min(kPart, count - begin);
      for (std::int64_t k = 0; k < widths; ++k) {
        const AffineQuantizer& quantizer = quantizers[static_cast<std::size_t>(k)];
        if (!quantizer.rounds()) continue;
        sums[static_cast<std::size_t>(part * widths + k)] =
            DotOfErrors(x + begin, g + begin, size, quantizer.scale, LevelsOf(quantizer));
      }
    }
  });
  std::vector<double> dots(quantizers.size(), 0.0);
  for (std::size_t i = 0; i < sums.size(); ++i) dots[i % dots.size()] += sums[i];
  return dots;
}

void ActivationSample::Add(const torch::Tensor& activations) {
  if (activations.numel() == 0) return;
  const torch::Tensor flat = activations.detach().reshape(-1).to(torch::kFloat32);
  const auto least = flat.min().item<float>(), most = flat.max().item<float>();
  low = std::isnan(least) ? least : std::min(low, least);
  high = std::isnan(most) ? most : std::max(high, most);
  const auto kept = [&] { return (values.defined() ? values.size(0) : 0) + (flat.size(0) + step - 1) / step; };
  while (kept() > most_values) {
    step *= 2;
    if (values.defined()) values = values.slice(0, 0, values.size(0), 2).clone();
  }
  const torch::Tensor some = step == 1 ? flat : flat.index_select(0, OneOfEvery(step, flat.size(0)));
  values = values.defined() ? torch::cat({values, some}) : some.clone();
}

AffineQuantizer FitActivation(const ActivationSample& sample, int bits, const std::string& range,
                              const std::string& grid) {
  const torch::NoGradGuard no_grad;
  if (bits < 1 || bits > 16) throw Error(ErrorKind::kInternal, "activations take 1 to 16 bits");
  if (grid != "zero" && grid != "half") throw Error(ErrorKind::kInternal, "grid of activations: zero or half");
  const bool half = grid == "half";
  if (!std::isfinite(sample.low) || !std::isfinite(sample.high)) {
    throw Error(ErrorKind::kData, "activations are not finite on training images");
  }
  if (!sample.values.defined()) return {.bits = bits};
  if (range == "max") return Between(sample.low, sample.high, bits, half);
  if (range == "percentile") return Percentile(sample, bits, half);
  if (range == "output" && !sample.readers.empty()) return LeastOutputError(sample, bits, half);
  if (range == "mse" || range == "output") {
    const auto tried = Tried(sample, bits, half);
    return tried[static_cast<std::size_t>(LeastSquares(sample, tried))];
  }
  throw Error(ErrorKind::kUsage, "range of activations '" + range + "': unknown; known: max, percentile, mse, output");
}

}  // namespace bitplan
