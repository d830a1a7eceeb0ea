// Sensitivity by measurement: quantize one layer, leave the others in float, and take the mean Kullback-Leibler
// divergence of the network's predictions from the float ones, KL(float || quantized) in nats per sample, on training
// images. It needs no labels and no gradient, sees every effect of that layer alone, and costs layers x widths forward
// passes.
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasureByQuantizing(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
