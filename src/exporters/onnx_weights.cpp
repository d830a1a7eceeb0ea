#include "exporters/onnx_weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

using onnx_file::Type;

int BitsOfType(Type type) {
  switch (type) {
    case Type::kInt2:
      return 2;
    case Type::kInt4:
      return 4;
    case Type::kInt8:
      return 8;
    case Type::kInt16:
      return 16;
    default:
      throw Error(ErrorKind::kInternal, "onnx: no type of weights");
  }
}

Type SmallestType(const torch::Tensor& integers) {
  const int low = integers.min().item<int>(), high = integers.max().item<int>();
  for (const Type type : {Type::kInt2, Type::kInt4, Type::kInt8}) {
    const int half = 1 << (BitsOfType(type) - 1);
    if (-half <= low && high < half) return type;
  }
  return Type::kInt16;
}

// One number for every dimension, -1 where the scales lie.
std::vector<std::int64_t> Along(std::int64_t dims, std::int64_t axis) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(dims), 1);
  shape[static_cast<std::size_t>(axis)] = -1;
  return shape;
}

bool SameFloats(const torch::Tensor& a, const torch::Tensor& b) {  // both contiguous float32
  return a.sizes() == b.sizes() && std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

}  // namespace

IntegerWeight IntegersOf(const QuantizedLayer& layer) {
  IntegerWeight weight;
  weight.axis = layer.blocks.front().channel_dim;
  weight.zeros = weight.odd = true;
  std::vector<torch::Tensor> integers, scales;
  for (const QuantizedTensor& block : layer.blocks) {
    const bool half = block.offset != 0.0F && block.bits > 0;
    const torch::Tensor codes = block.codes.to(torch::kInt16);
    integers.push_back(half ? codes * 2 + 1 : codes);
    const torch::Tensor own = half ? block.scales / 2 : block.scales;
    const bool alone = layer.blocks.size() == 1;
    scales.push_back(alone ? own : own.expand({block.codes.size(block.channel_dim)}));
    weight.zeros = weight.zeros && block.bits == 0;
    weight.odd = weight.odd && half;
    weight.bits = std::max(weight.bits, block.bits + (half ? 1 : 0));
  }
  weight.integers = torch::cat(integers, weight.axis).contiguous();
  weight.scales = torch::cat(scales).to(torch::kFloat32).contiguous();
  weight.type = SmallestType(weight.integers);
  return weight;
}

std::optional<IntegerWeight> IntegersAs(const IntegerWeight& weight, const torch::Tensor& parameter,
                                        const torch::Tensor& view) {
  if (!parameter.is_contiguous() || view.numel() == 0) return std::nullopt;
  const std::int64_t begin = view.storage_offset() - parameter.storage_offset();
  std::int64_t last = begin;
  for (std::int64_t d = 0; d < view.dim(); ++d) last += (view.size(d) - 1) * view.stride(d);
  if (begin < 0 || last >= parameter.numel()) return std::nullopt;
  const auto seen = [&](const torch::Tensor& numbers) {  // contiguous, in the shape of the parameter
    return numbers.as_strided(view.sizes(), view.strides(), begin);
  };
  IntegerWeight result = weight;
  result.integers = seen(weight.integers).contiguous();
  if (weight.scales.numel() > 1) {
    const torch::Tensor all =
        seen(weight.scales.reshape(Along(parameter.dim(), weight.axis)).expand_as(parameter).contiguous());
    std::optional<std::int64_t> axis;
    for (std::int64_t d = view.dim() - 1; d >= 0 && !axis; --d) {
      torch::Tensor own = all;
      for (std::int64_t other = 0; other < view.dim(); ++other) {
        if (other != d) own = own.narrow(other, 0, 1);
      }
      if (!own.expand_as(all).equal(all)) continue;
      axis = d;
      result.scales = own.reshape({-1}).contiguous();
    }
    if (!axis) return std::nullopt;
    result.axis = *axis;
  }
  const torch::Tensor values = result.integers.to(torch::kFloat32) *
                               result.scales.reshape(Along(view.dim(), result.scales.numel() > 1 ? result.axis : 0));
  if (!weight.zeros && !SameFloats(values.contiguous(), view.contiguous())) return std::nullopt;
  return result;
}

std::string IntegerBytes(const torch::Tensor& integers, Type type) {
  const int bits = BitsOfType(type);
  const torch::Tensor flat = integers.to(torch::kInt16).contiguous();
  const auto* const values = flat.data_ptr<std::int16_t>();
  const std::int64_t count = flat.numel();
  std::string bytes(static_cast<std::size_t>((count * bits + 7) / 8), '\0');
  if (bits == 16) {
    std::memcpy(bytes.data(), values, bytes.size());
    return bytes;
  }
  const unsigned mask = (1U << bits) - 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<unsigned>(values[i]) & mask;
    auto& byte = bytes[static_cast<std::size_t>(i * bits / 8)];
    byte = static_cast<char>(static_cast<unsigned char>(byte) | value << (i * bits % 8));
  }
  return bytes;
}

}  // namespace bitplan
