// A weight in integer codes, the one form that rounding, corrections, files and exports share. Floats are made from it
// by one formula, in Values():
//
//   value = scale * (code + offset)          one product in float32
//
// offset 0 is the mid-tread grid ("zero": a level at zero), 1/2 the mid-rise grid ("half": levels at odd halves of a
// step). A scale may be negative, so that the side of the grid with one level more lies above zero; a channel whose
// scale is zero holds zeros. Example:
//
//   #include <bitplan/quantizers/quantized_tensor.h>
//   bitplan::QuantizedTensor weight;
//   weight.bits = 2;
//   weight.codes = torch::tensor({-2, 1, 0, -1}, torch::kInt8).reshape({2, 2});
//   weight.scales = torch::tensor({0.5F, -1.0F});
//   const torch::Tensor values = weight.Values();  // {{-1.0, 0.5}, {-0.0, 1.0}}
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>

namespace bitplan {

// One bit width and one grid. A weight whose output channels have several is a list of these, one after another along
// `channel_dim`.
struct QuantizedTensor {
  int bits = 0;          // 0..8
  float offset = 0.0F;   // 0 or 1/2
  torch::Tensor codes;   // int8, shape of the weight: -2^(bits-1) .. 2^(bits-1) - 1; all zero at 0 bits
  torch::Tensor scales;  // float32 [channels], or [1] for all; zeros at 0 bits
  int channel_dim = 0;   // which dimension of the weight counts the output channels

  // Whether there is anything: a layer left in float has none.
  [[nodiscard]] bool defined() const { return codes.defined(); }

  // float32, shape of `codes`. Error(kInternal) when the scales do not fit the channels.
  [[nodiscard]] torch::Tensor Values() const;

  // The name of the grid in plans and recipes: zero, half.
  [[nodiscard]] std::string grid() const { return offset == 0.0F ? "zero" : "half"; }
};

}  // namespace bitplan
