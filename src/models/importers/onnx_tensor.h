// Tensors of an ONNX file as tensors of LibTorch.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "models/importers/onnx_file.h"
#include "models/onnx_types.h"

namespace bitplan::onnx_import {

using ElementType = OnnxElementType;

// What a value of this type is in the network: float32 for all real numbers, int64 for integers that count or index,
// the smallest type for 8 bits and less, bool. Empty for a type that is not known.
[[nodiscard]] std::optional<torch::ScalarType> TorchType(std::int64_t element_type);

// The tensor; external numbers are read from a file in the folder of the model. `what` begins the messages.
// Error(kData) when the numbers are not as many as the shape says, the type is not known, or a file outside that folder
// is named.
[[nodiscard]] torch::Tensor TorchTensor(const TensorField& field, const std::filesystem::path& model_file,
                                        const std::string& what);

}  // namespace bitplan::onnx_import
