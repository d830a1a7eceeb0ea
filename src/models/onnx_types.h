// Element types of ONNX: TensorProto.DataType, as far as networks need it.
// Source: onnx.proto3 of https://github.com/onnx/onnx.
#pragma once

#include <cstdint>

namespace bitplan {

enum class OnnxElementType : std::int64_t {
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
  kUint4 = 21,  // from opset 21: two a byte, the low half first
  kInt4 = 22,
  kUint2 = 25,  // from opset 25: four a byte, the low bits first
  kInt2 = 26,
};

}  // namespace bitplan
