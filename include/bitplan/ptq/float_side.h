// What the float network gives on the images that rounding and corrections look at. One pass serves both, and every
// plan that rounds the same layers.
#pragma once

#include <torch/types.h>

#include <memory>

#include "bitplan/models/network.h"

namespace bitplan {

class FloatSide {
 public:
  // `network` must outlive it. `images`: unlabelled training images, float32 normalized [n, C, H, W]; all go through at
  // once, so n bounds the memory (n times one activation). `several`: whether more than one plan asks; then what was
  // taken of every layer stays until the end, otherwise until the layer is rounded.
  FloatSide(const Network& network, torch::Tensor images, bool several = false);
  FloatSide(FloatSide&&) noexcept;
  FloatSide& operator=(FloatSide&&) noexcept;
  ~FloatSide();

  [[nodiscard]] const torch::Tensor& images() const;

  class Pass;  // src/ptq/float_pass.h
  [[nodiscard]] Pass& pass() { return *pass_; }

 private:
  std::unique_ptr<Pass> pass_;
};

}  // namespace bitplan
