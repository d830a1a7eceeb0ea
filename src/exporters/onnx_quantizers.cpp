// Quantizers of activations.
#include <cmath>

#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

// scale * (clamp(round(x / scale) + zero_point, low, high) - zero_point) as QuantizeLinear and DequantizeLinear. ONNX
// Runtime computes in uint8 what lies between two such pairs. Codes of fewer bits lie in uint8 too, limited to the
// highest of them: a limit on the codes, because one on x keeps ONNX Runtime from computing x with integers. 16 bits
// are int16, with another zero point.
Names FakeQuantize(const OnnxCall& call) {
  constexpr std::int64_t kByte = 255, kWord = 65535, kHalfWord = 32768;
  const std::int64_t zero_point = call.Int("zero_point"), low = call.Int("quant_min"), high = call.Int("quant_max");
  if (low != 0 || (high > kByte && high != kWord)) call.Refuse("has levels that ONNX has no type for");
  OnnxGraph& graph = call.graph();
  const auto scale = static_cast<float>(call.Real("scale"));
  const Names levels = {
      graph.Constant(torch::tensor(scale)),
      high == kWord ? graph.Constant(torch::tensor(static_cast<std::int16_t>(zero_point - kHalfWord), torch::kInt16))
                    : graph.Constant(torch::tensor(static_cast<std::uint8_t>(zero_point), torch::kUInt8))};
  std::string codes = graph.Add("QuantizeLinear", {call.Name("self"), levels[0], levels[1]});
  if (high < kByte) codes = graph.Add("Clip", {codes, "", graph.Number(static_cast<double>(high), torch::kUInt8)});
  return {graph.Add("DequantizeLinear", {codes, levels[0], levels[1]})};
}

}  // namespace

void AddQuantizers(OnnxTranslators& all) { all["fake_quantize_per_tensor_affine"] = FakeQuantize; }

}  // namespace bitplan::onnx_operators
