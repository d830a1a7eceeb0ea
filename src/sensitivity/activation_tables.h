// What rounding the tensors that layers read costs by every metric: each tensor alone, everything else in float, on the
// images and in the unit of the metric's table of weights, so that both add up. The metric `posterior` has its own way
// (activation_rises.h).
#pragma once

#include "bitplan/sensitivity/sensitivity.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/activation_rises.h"

namespace bitplan {

// By inputs.options.metric, which has such a table (SensitivityMetric::measure_activations). Error(kData) where an
// entry is not finite.
[[nodiscard]] ActivationRises MeasureActivationTable(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                                     ProgressSink& progress);

// measured: mean divergence of the predictions, nats per sample (activation_divergence.cpp).
[[nodiscard]] ActivationRises MeasureActivationsByRounding(const SensitivityInputs& inputs,
                                                           const ActivationLevels& levels, ProgressSink& progress);
// predictive: the same with batch norms moving along (activation_divergence.cpp).
[[nodiscard]] ActivationRises MeasureActivationsPredictive(const SensitivityInputs& inputs,
                                                           const ActivationLevels& levels, ProgressSink& progress);

// hawq: 1/2 * Tr(H) / n * mean ||da||^2, with H the Hessian of an image's loss with respect to the n numbers that it
// has in the tensor. Tr(H) is the squared gradient of a Fisher sketch: between rectified linear operations the Hessian
// of activations is the Fisher information (activation_gradients.cpp).
[[nodiscard]] ActivationRises MeasureActivationTrace(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                                     ProgressSink& progress);
// gradient: mean over images of sum_i |g_i da_i|, g the gradient of the image's labelled loss
// (activation_gradients.cpp).
[[nodiscard]] ActivationRises MeasureActivationGradients(const SensitivityInputs& inputs,
                                                         const ActivationLevels& levels, ProgressSink& progress);

// activation-distance: the mean over all layers of the relative squared error of their outputs (output_metrics.cpp).
[[nodiscard]] ActivationRises MeasureActivationDistanceOfReads(const SensitivityInputs& inputs,
                                                               const ActivationLevels& levels, ProgressSink& progress);
// fisher-output: 1/2 (dL/dy (y_q - y_f))^2 over the outputs of the layers that read the tensor (output_metrics.cpp).
[[nodiscard]] ActivationRises MeasureOutputFisherOfReads(const SensitivityInputs& inputs,
                                                         const ActivationLevels& levels, ProgressSink& progress);

// A table of zeros: [layers][widths].
[[nodiscard]] ActivationRises NoRises(const ActivationLevels& levels);

}  // namespace bitplan
