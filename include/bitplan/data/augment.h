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

// Images that the data do not hold: the first `count` images (0 .. n), each mixed with another one of the batch, in
// shares that are uniform in 0..1. The others are mirrored up and down, left and right, with probability 1/2 each, and
// rolled by any distance each way, the same for all of a call; every second one, at random, is inverted within the
// range of its channel's values in the batch. float32 [n, C, H, W] -> [count, C, H, W].
[[nodiscard]] torch::Tensor Blended(const torch::Tensor& images, std::int64_t count, RandomStream& stream);

}  // namespace bitplan
