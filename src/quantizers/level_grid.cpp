#include "bitplan/quantizers/level_grid.h"

#include <torch/types.h>

#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

// Shares of the range by which either end may move inwards; tried for both ends.
constexpr double kInset[] = {0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45};

torch::Tensor OnScale(const torch::Tensor& values, const std::string& scale) {
  return scale == "log" ? values.log() : values;
}

double LogError(const torch::Tensor& values, const torch::Tensor& logs, const LevelGrid& grid) {
  return (LevelValues(LevelCodes(values, grid), grid).log() - logs).square().mean(torch::kFloat64).item<double>();
}

}  // namespace

LevelGrid FitLevelGrid(const torch::Tensor& values, int bits, const std::string& scale) {
  if (scale != "log" && scale != "linear") {
    throw Error(ErrorKind::kUsage, UnknownNameMessage("scale", scale, {"log", "linear"}));
  }
  if (bits < 1 || bits > 8) throw Error(ErrorKind::kInternal, "level grid: bit width " + std::to_string(bits));
  const torch::Tensor flat = values.detach().reshape(-1);
  if (flat.numel() == 0 || !flat.gt(0.0).logical_and(flat.isfinite()).all().item<bool>()) {
    throw Error(ErrorKind::kInternal, "level grid: values must be positive and finite");
  }
  const torch::Tensor scaled = OnScale(flat, scale), logs = flat.log();
  const double low = scaled.min().item<double>(), high = scaled.max().item<double>();
  const auto steps = static_cast<double>((1 << bits) - 1);
  LevelGrid best{bits, scale, low, (high - low) / steps};
  if (!std::isnormal(static_cast<float>(best.step))) return {bits, scale, low, 0.0};  // nothing to divide by
  double least = LogError(flat, logs, best);
  for (const double from_below : kInset) {
    for (const double from_above : kInset) {
      const double start = low + from_below * (high - low), end = high - from_above * (high - low);
      const LevelGrid grid{bits, scale, start, (end - start) / steps};
      const double error = LogError(flat, logs, grid);
      if (!(error < least)) continue;
      least = error;
      best = grid;
    }
  }
  return best;
}

torch::Tensor LevelCodes(const torch::Tensor& values, const LevelGrid& grid) {
  const torch::Tensor scaled = OnScale(values.detach(), grid.scale);
  if (grid.step == 0.0) return torch::zeros_like(scaled, torch::kUInt8);
  const double last = static_cast<double>((1 << grid.bits) - 1);
  return scaled.sub(grid.low).div_(grid.step).round_().clamp_(0.0, last).to(torch::kUInt8);
}

torch::Tensor LevelValues(const torch::Tensor& codes, const LevelGrid& grid) {
  torch::Tensor values = codes.to(torch::kFloat32).mul_(grid.step).add_(grid.low);
  return grid.scale == "log" ? values.exp_() : values;
}

}  // namespace bitplan
