// What the operators of several files need: windows of convolutions and pools, and small steps.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/importers/onnx_call.h"

namespace bitplan::onnx_import {

// How a convolution or a pool moves over its input; one number each dimension.
struct Window {
  Sizes kernel, stride, dilation, begin, end;

  [[nodiscard]] bool even() const { return begin == end; }
  [[nodiscard]] Sizes padding() const { return even() ? begin : Sizes(begin.size(), 0); }
};

// Refusal unless there are `count` numbers, none below `least` and none absurd.
void CheckNumbers(const OnnxCall& call, const Sizes& numbers, std::size_t count, std::int64_t least);

// From strides, dilations and pads alone.
[[nodiscard]] Window PlainWindow(const OnnxCall& call, const Sizes& kernel);
// Also from auto_pad.
[[nodiscard]] Window WindowOf(const OnnxCall& call, const Sizes& kernel);

// x with the padding of a window that is not the same before and behind; otherwise x, and the operation pads.
[[nodiscard]] OnnxValue Padded(const OnnxCall& call, const OnnxValue& x, const Window& window, double with);

[[nodiscard]] Numbers NumbersFrom(const Sizes& sizes);

}  // namespace bitplan::onnx_import
