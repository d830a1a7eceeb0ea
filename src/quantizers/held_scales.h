// Scales that a consumer takes.
#pragma once

#include <torch/types.h>

#include "bitplan/core/consumer_limits.h"

namespace bitplan {

// The nearest scale that it stores, of the same sign. Where float16 is what it stores, a magnitude outside of its
// normal numbers stays as it is: an exporter keeps such a scale in float32.
[[nodiscard]] float HeldScale(float scale, const ConsumerLimits& limits);
// float32 of any shape, the same of every number.
[[nodiscard]] torch::Tensor HeldScales(const torch::Tensor& scales, const ConsumerLimits& limits);

// bool, shape of `scales`: whether their signs are taken.
[[nodiscard]] torch::Tensor AreHeld(const torch::Tensor& scales, const ConsumerLimits& limits);

}  // namespace bitplan
