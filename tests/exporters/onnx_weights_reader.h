// Weights of an ONNX file as runtimes make them: DequantizeLinear, and Quant and BipolarQuant of QONNX as published.
// Shares nothing with the exporter.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "exporters/onnx_reader.h"
#include "support/catch_torch.h"

namespace bitplan::testing {

inline constexpr int kInt2Type = 26, kInt4Type = 22, kInt8Type = 3, kInt16Type = 5;

inline int BitsOfOnnx(int type) { return type == kInt2Type ? 2 : type == kInt4Type ? 4 : type == kInt8Type ? 8 : 16; }

// What DequantizeLinear gives: (integer - 0) * scale, in float32.
inline torch::Tensor Dequantized(const ReadModel& model, const ReadOperation& operation) {
  const ReadTensor& integers = model.initializers.at(operation.inputs.at(0));
  const ReadTensor& scales = model.initializers.at(operation.inputs.at(1));
  const int bits = BitsOfOnnx(integers.type);
  std::int64_t count = 1;
  for (const std::int64_t size : integers.dims) count *= size;
  REQUIRE(static_cast<std::int64_t>(integers.bytes.size()) == (count * bits + 7) / 8);
  const std::int64_t axis = operation.numbers.contains("axis") ? operation.numbers.at("axis").at(0) : 0;
  std::int64_t inner = 1;
  for (std::size_t d = static_cast<std::size_t>(axis) + 1; d < integers.dims.size(); ++d) inner *= integers.dims[d];
  std::vector<float> scale(scales.bytes.size() / 4);
  std::memcpy(scale.data(), scales.bytes.data(), scales.bytes.size());
  torch::Tensor values = torch::empty(integers.dims);
  auto* const value = values.data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t code = 0;
    for (int b = 0; b < bits; ++b) {
      const std::int64_t at = i * bits + b;
      code |= (static_cast<unsigned char>(integers.bytes[static_cast<std::size_t>(at / 8)]) >> (at % 8) & 1U) << b;
    }
    const auto integer = static_cast<std::int32_t>(code << (32 - bits)) >> (32 - bits);
    const std::size_t channel = scale.size() == 1 ? 0 : static_cast<std::size_t>(i / inner) % scale.size();
    value[i] = static_cast<float>(integer) * scale[channel];
  }
  return values;
}

inline torch::Tensor FloatsOf(const ReadModel& model, const std::string& name) {
  const ReadTensor& stored = model.initializers.at(name);
  REQUIRE(stored.type == 1);
  torch::Tensor floats = torch::empty(stored.dims);
  REQUIRE(stored.bytes.size() == floats.nbytes());
  std::memcpy(floats.data_ptr(), stored.bytes.data(), stored.bytes.size());
  return floats;
}

// The index of a scale for element i: a scale is a scalar, or has as many dimensions as the weight.
inline std::int64_t ScaleIndex(const torch::Tensor& scale, const torch::Tensor& weight, std::int64_t i) {
  if (scale.dim() == 0) return 0;
  REQUIRE(scale.dim() == weight.dim());
  std::int64_t index = 0, times = 1;
  for (std::int64_t d = weight.dim() - 1; d >= 0; --d) {
    const std::int64_t at = i % weight.size(d);
    i /= weight.size(d);
    if (scale.size(d) > 1) index += at * times;
    times *= scale.size(d);
  }
  return index;
}

// Divide, shift, clip, round half to even, shift back, multiply: all in float32.
inline torch::Tensor QuantOf(const ReadModel& model, const ReadOperation& node) {
  REQUIRE(node.domain == "qonnx.custom_op.general");
  const torch::Tensor x = FloatsOf(model, node.inputs.at(0)), scale = FloatsOf(model, node.inputs.at(1));
  torch::Tensor y = torch::empty_like(x);
  const bool bipolar = node.type == "BipolarQuant";
  float zero_point = 0.0F, low = 0.0F, high = 0.0F;
  if (!bipolar) {
    REQUIRE(node.type == "Quant");
    REQUIRE(node.inputs.size() == 4);
    const torch::Tensor point = FloatsOf(model, node.inputs.at(2)), width = FloatsOf(model, node.inputs.at(3));
    REQUIRE(point.dim() == 0);
    REQUIRE(width.dim() == 0);
    REQUIRE(node.numbers.at("signed").at(0) == 1);
    REQUIRE(node.texts.at("rounding_mode") == "ROUND");
    REQUIRE(width.item<float>() >= 2);
    zero_point = point.item<float>();
    high = std::ldexp(1.0F, width.item<int>() - 1) - 1.0F;
    low = -high - (node.numbers.at("narrow").at(0) == 1 ? 0.0F : 1.0F);
  }
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const float in = x.data_ptr<float>()[i];
    const float s = scale.contiguous().data_ptr<float>()[ScaleIndex(scale, x, i)];
    float& out = y.data_ptr<float>()[i];
    if (bipolar) {
      out = (in >= 0.0F ? 1.0F : -1.0F) * s;
      continue;
    }
    const float clipped = std::min(std::max(in / s + zero_point, low), high);
    out = (std::nearbyint(clipped) - zero_point) * s;
  }
  return y;
}

}  // namespace bitplan::testing
