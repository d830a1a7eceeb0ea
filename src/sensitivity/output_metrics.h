// Two peers' metrics that look at what a quantized layer puts out. Both quantize one layer at a time, on at most 256
// images of `sensitivity.samples`. For every layer and width activation-distance runs the network from that layer on,
// fisher-output the layer alone (one_layer_runs.h).
//
// activation-distance (Sony MCT, github.com/sony/model_optimization, mixed-precision search): the mean over the
// interest points of ||y_q - y_f||^2 / ||y_f||^2. Here the interest points are the outputs of all layers with equal
// weight; MCT lets its user choose points, distance and weighting, and uses 32 images by default.
//
// fisher-output (NVIDIA ModelOpt, auto_quantize with gradient scores): 1/2 sum over the layer's own outputs of
// (dL/dy (y_q - y_f))^2, mean over the images, L the labelled loss of an image in nats.
//
// Both count on the batch-norm correction that a plan gets (inputs.quantizer.centring), as our own metrics do:
// statistics of batch norms move along in the pass, and of outputs that go into a batch norm the mean and the deviation
// of a channel come back. The peers' own programs have no such correction.
//
// Where the network activates a layer's output in place, the output is what the activation leaves, in both metrics.
#pragma once

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

[[nodiscard]] AllocationProblem MeasureActivationDistance(const SensitivityInputs& inputs, ProgressSink& progress);
[[nodiscard]] AllocationProblem MeasureOutputFisher(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
