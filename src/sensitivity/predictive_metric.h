// The divergence of the predictive distribution when one layer alone is quantized and the batch norms are corrected as
// the plan's will be; keeps the displacements of the logits behind it (bitplan/sensitivity/displacements.h).
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasurePredictive(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
