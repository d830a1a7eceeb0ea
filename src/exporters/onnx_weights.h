// Weights of a plan as ONNX keeps them: signed integers of 2, 4, 8 or 16 bits, and DequantizeLinear behind them.
//
//   grid zero:   scale * code             is   scale * integer,         integer = code
//   grid half:   scale * (code + 1/2)     is   (scale / 2) * integer,   integer = 2 * code + 1
//
// Both products of the second line are the same real number, and halving a float32 is exact unless it gets subnormal:
// the rounded values are the same bits. Source: the operator DequantizeLinear, y = (x - zero_point) * scale.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "bitplan/exporters/quantized_network.h"
#include "exporters/onnx_model.h"

namespace bitplan {

struct IntegerWeight {
  torch::Tensor integers;                         // int16, shape of the weight
  torch::Tensor scales;                           // float32 [channels], or [1] for all
  std::int64_t axis = 0;                          // dimension of the channels
  onnx_file::Type type = onnx_file::Type::kInt8;  // the smallest that holds all integers
  bool zeros = false;                             // nothing but zeros: a layer of 0 bits
  int bits = 0;                                   // width of the integers: that of the plan, one more on the grid half
  bool odd = false;                               // grid half throughout: never 0, never -2^(bits-1)
};

// How a weight stands in the graph.
enum class OnnxWeights {
  kIntegers,    // DequantizeLinear behind integers
  kQuantNodes,  // a Quant or BipolarQuant node of QONNX behind float32
};

[[nodiscard]] IntegerWeight IntegersOf(const QuantizedLayer& layer);

// The same numbers as a view of the weight sees them: transposed, or a part of it. `view` shares the storage of
// `parameter`, which is contiguous. Empty where the view has no dimension of channels, and where the values would not
// be those of `view` bit for bit.
[[nodiscard]] std::optional<IntegerWeight> IntegersAs(const IntegerWeight& weight, const torch::Tensor& parameter,
                                                      const torch::Tensor& view);

// Integers of `type` without a bit between them, in C order.
[[nodiscard]] std::string IntegerBytes(const torch::Tensor& integers, onnx_file::Type type);

}  // namespace bitplan
