// Quantizers of activations in the code of a network.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "bitplan/quantizers/affine_quantizer.h"

namespace bitplan {

// Puts a quantizer before a node; returns the rounded value, which nothing reads yet. Its numbers are constants of the
// graph, as exporters and other programs read them: aten::fake_quantize_per_tensor_affine.
// Error(kInternal) for levels at odd halves, which that operator does not have.
torch::jit::Value* InsertQuantizer(torch::jit::Node* before, torch::jit::Value* value,
                                   const AffineQuantizer& quantizer);

// The same levels with a scale that learns: `scale` is a value of the graph, a float32 tensor without dimensions.
// Gradients pass straight through within the levels, and the scale gets that of learned step size (LSQ; Esser et al.
// 2020). Made of plain operations: PyTorch's _fake_quantize_learnable_per_tensor_affine hands its scale on as the
// gradient of an empty tensor. quantizer.scale is not looked at.
torch::jit::Value* InsertQuantizer(torch::jit::Node* before, torch::jit::Value* value, torch::jit::Value* scale,
                                   const AffineQuantizer& quantizer);

}  // namespace bitplan
