// Activations of a plan: every planned layer reads its input rounded to a few bits.
//
// One tensor has one quantizer. Where it feeds several layers, or is also added to another one behind a residual
// connection, everything that reads it reads the rounded values, as an integer runtime stores them once.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"

namespace bitplan {

// Puts quantizers at the inputs of the layers. `bits`: of every layer, 2..8 or 16; 32: left in float. Ranges are those
// of the float network on `images`, float32 normalized [N, ...]; `range` as FitActivation has it.
//
// applied.module becomes one with the same attributes whose forward holds all calls in their places, with
// aten::fake_quantize_per_tensor_affine behind the tensors that are read: PyTorch runs it as any other module, and
// derivatives pass. applied.activations states the quantizers. Error(kData) for a layer whose place in the code is not
// found, and for layers that share a tensor and not a width; both name the layer.
//
// `round_sums`: both terms of every sum of two tensors of one shape are rounded too, to 8 bits, as the integer kernels
// of runtimes take them. A term whose values are levels of a quantizer already, sliced or padded with zeros, keeps that
// quantizer. Nothing where no layer is rounded. Error(kData) where the sums that run are not those of the code in their
// order: sums in branches and loops, or of tensors of different shapes.
void QuantizeActivations(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                         const std::string& range, const torch::Tensor& images, ProgressSink& progress,
                         bool round_sums = false);

}  // namespace bitplan
