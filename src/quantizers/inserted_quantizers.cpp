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
  torch::jit::Graph& graph = *value->owningGraph();
  const torch::jit::WithInsertPoint here(before);
  torch::jit::Value* const half = quantizer.half ? graph.insert(c10::aten::mul, {scale, 0.5}) : nullptr;
  torch::jit::Value* const moved = half != nullptr ? graph.insert(c10::aten::sub, {value, half}) : value;
  torch::jit::Value* rounded = graph.insert(
      c10::Symbol::fromQualString("aten::_fake_quantize_learnable_per_tensor_affine"),
      {moved, scale, torch::full({1}, static_cast<float>(quantizer.zero_point)), std::int64_t{0}, quantizer.highest()});
  if (half != nullptr) rounded = graph.insert(c10::aten::add, {rounded, half});
  rounded->setType(value->type());
  return rounded;
}

}  // namespace bitplan
