// Training-time augmentation of uint8 or float32 image batches, by named stream.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "bitplan/core/random.h"

namespace bitplan {

struct Augmentation {
  const char* name;  // shift, flip, pad-and-crop
  const char* description;
  torch::Tensor (*apply)(const torch::Tensor& images, RandomStream& stream);  // [n, C, H, W] -> same shape and type
};

[[nodiscard]] const std::vector<Augmentation>& Augmentations();
// Error(kUsage) for an unknown name.
[[nodiscard]] const Augmentation& FindAugmentation(const std::string& name);

}  // namespace bitplan
