// AutoRound's metric as its mixed-width scheme documents it (github.com/intel/auto-round, AutoScheme "delta loss"):
// D_u(b) = sum_i |g_i (Q_b(w_i) - w_i)|, g the gradient of the labelled loss (nats per sample) with respect to the
// weight. Theirs takes the gradient where all layers are quantized by the scheme in question, one sample at a time;
// ours takes it in the float network, once for all widths. Here |g_i| is the mean over minibatches of 16 images; the
// published tool sees language models and token losses.
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasureGradientProduct(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
