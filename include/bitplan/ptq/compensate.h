// Compensated rounding: the quantized weights of every layer are rounded so that its outputs come closest to those of
// the float network on training images, in one forward pass of the quantized network: each layer sees the inputs that
// the layers before it, already rounded anew, really give it, and takes back what they did wrong. Grids and sizes are
// those of plain rounding; only which code a weight gets changes, and the scale that goes with it
// (src/quantizers/compensation.h).
#pragma once

#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/ptq/float_side.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan {

// Rounds the layers of `applied`, which ApplyBits made of `network`, anew. `bits`: of every layer; more than 8 leaves a
// layer alone, and so do a second use and a convolution whose window is not known. `images`: unlabelled training
// images, float32 normalized [n, C, H, W]; all go through at once. Where options.centring counts on the fit of a
// layer's outputs, rounding does not look at their mean, and puts it right in the layer's bias. Unless options.centring
// leaves batch norm out, its statistics move along during the pass (method `transfer`) and are put back after it.
void CompensateRounding(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                        const QuantizerOptions& options, const torch::Tensor& images, ProgressSink& progress);
// The same against what the float network gave on reference.images(), for who needs that again.
void CompensateRounding(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                        const QuantizerOptions& options, FloatSide& reference, ProgressSink& progress);

}  // namespace bitplan
