// Operators that take numbers from places of a value.
#include <fmt/format.h>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

// Places count from the back where they are negative.
OnnxValue FromFront(const OnnxCall& call, const OnnxValue& places, const Number& size) {
  if (places->tensor().is_floating_point()) call.Refuse("takes places that are real numbers");
  bool negative = places->source == Source::kData;
  for (const torch::Tensor& walk : places->walks) negative = negative || walk.lt(0).any().item<bool>();
  OnnxValue whole = places;
  if (places->tensor().scalar_type() != torch::kInt64) whole = call.Run("to", {places, torch::kInt64});
  if (!negative) return whole;
  return call.Run("where", {call.Run("lt", {whole, 0}), call.Run("add", {whole, size}), whole});
}

std::vector<OnnxValue> Gather(const OnnxCall& call) {
  const OnnxValue &x = call.In(0), &places = call.In(1);
  const std::int64_t axis = call.Axis(call.Int("axis", 0), x->rank());
  if (places->source == Source::kData && x->constant() && x->rank() == 2 && axis == 0) {
    return {call.Run("embedding", {x, places})};
  }
  if (places->constant() && places->rank() == 0) {
    return {call.Run("select", {x, axis, places->tensor().item<std::int64_t>()})};
  }
  const Number size = call.graph().SizesOf(x)[static_cast<std::size_t>(axis)];
  const OnnxValue front = FromFront(call, places, size);
  if (front->rank() == 1) return {call.Run("index_select", {x, axis, front})};
  const OnnxValue taken = call.Run("index_select", {x, axis, call.Run("reshape", {front, Numbers{-1}})});
  if (front->rank() == 0) return {call.Run("squeeze", {taken, axis})};
  Numbers shape = call.graph().SizesOf(x);
  const Numbers inner = call.graph().SizesOf(front);
  const auto at = shape.begin() + axis;
  shape.insert(shape.erase(at), inner.begin(), inner.end());
  return {call.Run("reshape", {taken, shape})};
}

std::vector<OnnxValue> GatherElements(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t axis = call.Axis(call.Int("axis", 0), x->rank());
  const Numbers sizes = call.graph().SizesOf(x);
  OnnxValue places = FromFront(call, call.In(1), sizes[static_cast<std::size_t>(axis)]);
  const std::int64_t batch_dim = call.graph().BatchDim(x);
  const bool of_one_image = call.graph().fixed_batch() == 1 && batch_dim >= 0 && batch_dim != axis &&
                            places->rank() == x->rank() && places->constant();
  if (of_one_image) {  // there for every image
    Numbers wide(sizes.size(), Number(-1));
    wide[static_cast<std::size_t>(batch_dim)] = sizes[static_cast<std::size_t>(batch_dim)];
    places = call.Run("expand", {places, wide});
  }
  return {call.Run("gather", {x, axis, places})};
}

std::vector<OnnxValue> Trilu(const OnnxCall& call) {
  std::int64_t diagonal = 0;
  if (call.Has(1)) {
    if (call.ConstantIn(1).numel() != 1) call.Refuse("has more than one diagonal");
    diagonal = call.ConstantIn(1).item<std::int64_t>();
  }
  return {call.Run(call.Int("upper", 1) != 0 ? "triu" : "tril", {call.In(0), diagonal})};
}

std::vector<OnnxValue> TopK(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t axis = call.Axis(call.Int("axis", -1), x->rank());
  std::int64_t count = 0;
  if (call.opset() < 10) {
    count = call.Int("k", 0);
  } else {
    if (call.ConstantIn(1).numel() != 1) call.Refuse("has more than one k");
    count = call.ConstantIn(1).item<std::int64_t>();
  }
  call.Ignore("sorted");
  return call.graph().RunMany("topk", {x, count, axis, call.Int("largest", 1) != 0, true});
}

}  // namespace

void AddPlaces(OnnxTranslators& all) {
  all["Gather"] = Gather;
  all["GatherElements"] = GatherElements;
  all["Trilu"] = Trilu;
  all["TopK"] = TopK;
}

}  // namespace bitplan::onnx_import
