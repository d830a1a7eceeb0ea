#include "quantizers/inserted_quantizers.h"

#include <torch/types.h>

#include <cstdint>

#include "bitplan/core/error.h"

namespace bitplan {

torch::jit::Value* InsertQuantizer(torch::jit::Node* before, torch::jit::Value* value,
                                   const AffineQuantizer& quantizer) {
  if (quantizer.half) throw Error(ErrorKind::kInternal, "levels at odd halves take a scale that moves");
  const torch::jit::WithInsertPoint here(before);
  torch::jit::Value* const rounded = value->owningGraph()->insert(
      c10::Symbol::fromQualString("aten::fake_quantize_per_tensor_affine"),
      {value, static_cast<double>(quantizer.scale), quantizer.zero_point, std::int64_t{0}, quantizer.highest()});
  rounded->setType(value->type());
  return rounded;
}

torch::jit::Value* InsertQuantizer(torch::jit::Node* before, torch::jit::Value* value, torch::jit::Value* scale,
                                   const AffineQuantizer& quantizer) {
  namespace aten = c10::aten;
  torch::jit::Graph& graph = *value->owningGraph();
  const torch::jit::WithInsertPoint here(before);
  const double low = -static_cast<double>(quantizer.zero_point);
  const double high = low + static_cast<double>(quantizer.highest()), offset = quantizer.half ? 0.5 : 0.0;
  torch::jit::Value* scaled = graph.insert(aten::div, {value, scale});
  if (quantizer.half) scaled = graph.insert(aten::sub, {scaled, offset});
  torch::jit::Value* const clipped = graph.insert(aten::clamp, {scaled, low, high});
  torch::jit::Value* const error = graph.insert(aten::sub, {graph.insert(aten::round, {clipped}), clipped});
  torch::jit::Value* rounded = graph.insert(aten::add, {clipped, graph.insert(aten::detach, {error})});
  if (quantizer.half) rounded = graph.insert(aten::add, {rounded, offset});
  return graph.insert(aten::mul, {rounded, scale});
}

}  // namespace bitplan
