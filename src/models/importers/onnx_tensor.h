// Tensors of an ONNX file as tensors of LibTorch.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "models/importers/onnx_file.h"

namespace bitplan::onnx_import {

// TensorProto.DataType as far as networks need it.
enum class ElementType : std::int64_t {
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kBool = 9,
  kHalf = 10,
  kDouble = 11,
  kUint32 = 12,
  kUint64 = 13,
  kBfloat16 = 16,
  kUint4 = 21,
  kInt4 = 22,
  kUint2 = 25,
  kInt2 = 26,
};

// What a value of this type is in the network: float32 for all real numbers, int64 for integers that count or index,
// the smallest type for 8 bits and less, bool. Empty for a type that is not known.
[[nodiscard]] std::optional<torch::ScalarType> TorchType(std::int64_t element_type);

// The tensor; external numbers are read from a file in the folder of the model. `what` begins the messages.
// Error(kData) when the numbers are not as many as the shape says, the type is not known, or a file outside that folder
// is named.
[[nodiscard]] torch::Tensor TorchTensor(const TensorField& field, const std::filesystem::path& model_file,
                                        const std::string& what);

}  // namespace bitplan::onnx_import
