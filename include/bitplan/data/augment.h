// Training-time augmentation of uint8 or float32 image batches, by named stream.
#pragma once

#include <torch/types.h>

#include <cstdint>
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

// Every image under a small affine map of its own about its middle: turned by up to 0.15 rad, scaled by up to 7 % along
// either axis, sheared by up to 0.1, moved by up to 1/28 of its size; bilinear, beyond the border the border goes on.
// float32 [n, C, H, W] -> the same shape. Images less than 8 pixels high or wide are no pictures and stay as they are.
[[nodiscard]] torch::Tensor Distorted(const torch::Tensor& images, RandomStream& stream);

// Even blends of two images each: `images` [n, ...] -> float32 [count, ...], the mean of images i and i + 1
// (cyclically) for i = 0 .. count - 1; count <= n. Of images in random order most are images that no class stands for.
[[nodiscard]] torch::Tensor Blended(const torch::Tensor& images, std::int64_t count);

// Pictures of nothing: smooth random surfaces over the whole range of every channel of `images` [n, C, H, W], n > 0;
// every other one inside a random smooth outline on the least value. Bilinear between 2 to 7 random values along either
// axis. float32 [count, C, H, W].
[[nodiscard]] torch::Tensor Shapes(const torch::Tensor& images, std::int64_t count, RandomStream& stream);

// What images are made of, otherwise arranged: the first `count` of `images` [n, C, H, W], n > 0, count <= n, each as a
// negative (within the range of its channel over all images) or not, where H = W transposed or not, cut into 1, 2 x 2
// or 4 x 4 blocks whose rows and columns are in random order, and mirrored or not along either axis. float32
// [count, C, H, W].
[[nodiscard]] torch::Tensor Rearranged(const torch::Tensor& images, std::int64_t count, RandomStream& stream);

}  // namespace bitplan
