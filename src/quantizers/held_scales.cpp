#include "quantizers/held_scales.h"

#include <c10/util/Half.h>

#include <cmath>

namespace bitplan {
namespace {

constexpr float kSmallestNormalHalf = 0x1p-14F, kLargestHalf = 65504.0F;

}  // namespace

float HeldScale(float scale, const ConsumerLimits& limits) {
  const float magnitude = std::abs(scale);
  const bool has_half = magnitude >= kSmallestNormalHalf && magnitude <= kLargestHalf;
  return limits.float16_scales && has_half ? static_cast<float>(c10::Half(scale)) : scale;
}

torch::Tensor HeldScales(const torch::Tensor& scales, const ConsumerLimits& limits) {
  if (!limits.float16_scales) return scales;
  const torch::Tensor magnitudes = scales.abs();
  const torch::Tensor have_half = magnitudes.ge(kSmallestNormalHalf) & magnitudes.le(kLargestHalf);
  return torch::where(have_half, scales.to(torch::kFloat16).to(torch::kFloat32), scales);
}

torch::Tensor AreHeld(const torch::Tensor& scales, const ConsumerLimits& limits) {
  return limits.negative_scales ? torch::ones_like(scales, torch::kBool) : scales.ge(0.0F);
}

}  // namespace bitplan
