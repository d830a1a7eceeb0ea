// Sensitivity from the posterior's likelihood information, corrected for errors that act together.
//
// Weight by weight the expected rise of the loss is 1/2 Lambda_i (Q_b(w_i) - w_i)^2, nats per sample; summed over a
// layer this is blind to correlations: on a ResNet-20 the last convolution rises six times as much at two bits as the
// sum says, on a VGG-16 a thousand times. The rounding error dw of a layer is known, though, and so the full quadratic
// form along it can be had: the gradient g of a Fisher sketch of a minibatch (posterior/batches.h) obeys
//   E[(g . dw)^2] = sum_n E[(g_n . dw)^2] = 2 * (loss rise along dw) * batch,
// one dot product per layer and width for every backward pass, no curvature matrix. The ratio of the two is the unit's
// `coherence`; the table holds their product, the scores stay those of the posterior.
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasurePosterior(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
