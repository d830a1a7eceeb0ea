// The graph of a quantized network in ONNX.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <vector>

#include "bitplan/exporters/exporter.h"
#include "bitplan/exporters/quantized_network.h"
#include "exporters/onnx_model.h"
#include "exporters/onnx_weights.h"

namespace bitplan {

// `module` has the weights of `network`; its input is [N, input_shape...] of `input_type`, N is free in the file.
// Weights of layers are as `weights` says, everything else has the type that it has in the module.
// Error(kData) that names operator and place where something has no counterpart in ONNX.
[[nodiscard]] onnx_file::Model TranslateToOnnx(const QuantizedNetwork& network, const torch::jit::Module& module,
                                               const std::vector<std::int64_t>& input_shape,
                                               torch::ScalarType input_type,
                                               OnnxWeights weights = OnnxWeights::kIntegers);
// The same for an exporter: of quantized.pt, with name and plan.
[[nodiscard]] onnx_file::Model TranslatedModel(const ExportInputs& inputs, OnnxWeights weights);

}  // namespace bitplan
