// Normalizations, with the statistics that a network in evaluation mode uses.
#include <fmt/format.h>

#include "models/importers/onnx_call.h"

namespace bitplan::onnx_import {
namespace {

void CheckChannels(const OnnxCall& call, const OnnxValue& value, std::int64_t channels) {
  if (value->rank() == 1 && value->tensor().size(0) == channels) return;
  call.Refuse(fmt::format("has an input that is not one number for each of {} channels", channels));
}

std::vector<OnnxValue> BatchNormalization(const OnnxCall& call) {
  if (call.Int("training_mode", 0) != 0 || call.Int("is_test", 1) == 0) {
    call.Refuse("takes its statistics from the batch; export the model after model.eval()");
  }
  if (call.Int("spatial", 1) == 0) call.Refuse("has statistics for every place (spatial=0)");
  call.Ignore("momentum");
  if (call.In(0)->rank() < 2) call.Refuse("needs an input of two dimensions or more");
  const std::int64_t channels = call.In(0)->tensor().size(1);
  for (const std::size_t input : {1, 2, 3, 4}) {
    if (!call.In(input)->constant()) call.Refuse("takes its statistics from activations");
    CheckChannels(call, call.In(input), channels);
  }
  call.In(3)->parameter = call.In(4)->parameter = false;
  return {call.Run("batch_norm", {call.In(0), call.In(1), call.In(2), call.In(3), call.In(4), false, 0.1,
                                  call.Real("epsilon", 1e-5), false})};
}

std::vector<OnnxValue> LayerNormalization(const OnnxCall& call) {
  call.Ignore("stash_type");
  const OnnxValue& x = call.In(0);
  const std::int64_t axis = call.Axis(call.Int("axis", -1), x->rank());
  const Numbers sizes = call.graph().SizesOf(x);
  const Numbers normalized(sizes.begin() + axis, sizes.end());
  Sizes shape;
  for (const Number& size : normalized) {
    if (!size.constant()) call.Refuse("normalizes over a size that is not fixed");
    shape.push_back(size.at(0));
  }
  const auto fitted = [&](std::size_t input) -> Argument {
    if (!call.Has(input)) return std::nullopt;
    const OnnxValue& value = call.In(input);
    if (value->tensor().sizes() == c10::IntArrayRef(shape)) return value;
    OnnxValue wide = call.Run("expand", {value, normalized});
    if (wide->constant()) {
      wide = call.graph().Constant(wide->tensor().contiguous(), value->name);
      wide->parameter = value->parameter;
    }
    return wide;
  };
  return {call.Run("layer_norm", {x, normalized, fitted(1), fitted(2), call.Real("epsilon", 1e-5)})};
}

std::vector<OnnxValue> InstanceNormalization(const OnnxCall& call) {
  if (call.In(0)->rank() < 3) call.Refuse("needs an input of three dimensions or more");
  const std::int64_t channels = call.In(0)->tensor().size(1);
  CheckChannels(call, call.In(1), channels);
  CheckChannels(call, call.In(2), channels);
  return {call.Run("instance_norm", {call.In(0), call.In(1), call.In(2), std::nullopt, std::nullopt, true, 0.0,
                                     call.Real("epsilon", 1e-5), false})};
}

std::vector<OnnxValue> GroupNormalization(const OnnxCall& call) {
  call.Ignore("stash_type");
  const std::int64_t groups = call.Int("num_groups", 0);
  if (call.In(0)->rank() < 2) call.Refuse("needs an input of two dimensions or more");
  const std::int64_t channels = call.In(0)->tensor().size(1);
  if (groups < 1 || channels % groups != 0) call.Refuse("has an impossible number of groups");
  const auto of_channels = [&](std::size_t input) -> OnnxValue {
    const OnnxValue& value = call.In(input);
    // Until operator set 20 there was one number a group.
    if (call.opset() >= 21 || groups == channels) {
      CheckChannels(call, value, channels);
      return value;
    }
    CheckChannels(call, value, groups);
    const OnnxValue spread = call.Run("repeat_interleave", {value, channels / groups, 0});
    if (spread->constant()) {
      spread->name = value->name;
      spread->parameter = value->parameter;
    }
    return spread;
  };
  return {
      call.Run("group_norm", {call.In(0), groups, of_channels(1), of_channels(2), call.Real("epsilon", 1e-5), false})};
}

std::vector<OnnxValue> RmsNormalization(const OnnxCall& call) {
  call.Ignore("stash_type");
  const OnnxValue& x = call.In(0);
  Numbers dims;
  for (std::int64_t d = call.Axis(call.Int("axis", -1), x->rank()); d < x->rank(); ++d) dims.emplace_back(d);
  const OnnxValue mean = call.Run("mean", {call.Run("mul", {x, x}), dims, true});
  const OnnxValue factor = call.Run("rsqrt", {call.Run("add", {mean, call.Real("epsilon", 1e-5)})});
  return {call.Run("mul", {call.Run("mul", {x, factor}), call.In(1)})};
}

std::vector<OnnxValue> LpNormalization(const OnnxCall& call) {
  const std::int64_t p = call.Int("p", 2), axis = call.Axis(call.Int("axis", -1), call.In(0)->rank());
  if (p != 1 && p != 2) call.Refuse("has a norm other than 1 and 2");
  const OnnxValue norm = call.Run("norm", {call.In(0), static_cast<double>(p), Numbers{axis}, true});
  return {call.Run("div", {call.In(0), norm})};
}

}  // namespace

void AddNorms(OnnxTranslators& all) {
  all["BatchNormalization"] = BatchNormalization;
  all["LayerNormalization"] = LayerNormalization;
  all["InstanceNormalization"] = InstanceNormalization;
  all["GroupNormalization"] = GroupNormalization;
  all["RMSNormalization"] = RmsNormalization;
  all["LpNormalization"] = LpNormalization;
}

}  // namespace bitplan::onnx_import
