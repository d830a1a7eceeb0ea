// The loss rise of what is really deployed: a layer that is rounded by compensation, in a network whose other layers
// are quantized too.
//
// Alone in a float network a layer is measured twice, each time as the divergence of the predictions with batch norms
// following (metric `predictive`): with its nearest levels, d_n, and with levels that compensate each other's errors on
// the inputs that the float network gives it, d_c (sensitivity/compensated_layers.h). The first is what compensation
// starts from, the second what it would reach if no other layer were quantized. A plan lies between them:
//   rise_l(b) = sqrt(d_n d_c).
// Among plans of about the same size this ranks better than either (docs/method.md).
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasureCompensated(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
