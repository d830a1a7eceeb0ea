// HAWQ's metric (Dong et al. 2020, "HAWQ-V2", arXiv 1911.03852): D_u(b) = 1/2 * Tr(H_u) / n_u * ||Q_b(w_u) - w_u||^2
// with the Hessian H_u of the labelled loss (nats per sample) with respect to the layer's n_u weights. The trace is
// Hutchinson's estimate E[v^T H v] with Rademacher vectors v, one Hessian product and one fresh vector for every layer
// and minibatch of 32.
//
// Differences from the published code: at most 512 images of `sensitivity.samples` are used (Hessian products cost a
// second backward pass), a fixed number of probes (one a minibatch) takes the place of a convergence test, and
// of a negative estimate the magnitude counts.
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasureHessianTrace(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
