#include "bitplan/data/augment.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

constexpr std::int64_t kLeastPicture = 8;                  // pixels
constexpr std::uint64_t kFewestKnots = 2, kMostKnots = 7;  // of a smooth field along either axis

// Every image moved by its own whole number of pixels, -reach..reach each way; zeros move in.
torch::Tensor Shifted(const torch::Tensor& images, RandomStream& stream, std::int64_t reach) {
  const torch::Tensor source = images.contiguous();
  torch::Tensor result = torch::zeros_like(source);
  const std::int64_t channels = source.size(1), height = source.size(2), width = source.size(3);
  const auto element = static_cast<std::int64_t>(source.element_size());
  const std::int64_t row = width * element, plane = height * row;
  const auto* from = static_cast<const char*>(source.data_ptr());
  auto* to = static_cast<char*>(result.data_ptr());
  const auto steps = static_cast<std::uint64_t>(2 * reach + 1);
  for (std::int64_t n = 0; n < source.size(0); ++n) {
    const std::int64_t down = static_cast<std::int64_t>(stream.Index(steps)) - reach;
    const std::int64_t right = static_cast<std::int64_t>(stream.Index(steps)) - reach;
    const std::int64_t columns = width - std::abs(right);
    if (columns <= 0) continue;
    const std::int64_t from_column = std::max<std::int64_t>(0, -right), to_column = std::max<std::int64_t>(0, right);
    const std::int64_t first = std::max<std::int64_t>(0, down), last = height + std::min<std::int64_t>(0, down);
    for (std::int64_t c = n * channels; c < (n + 1) * channels; ++c) {
      for (std::int64_t y = first; y < last; ++y) {
        std::memcpy(to + c * plane + y * row + to_column * element,
                    from + c * plane + (y - down) * row + from_column * element,
                    static_cast<std::size_t>(columns * element));
      }
    }
  }
  return result;
}

torch::Tensor Shift(const torch::Tensor& images, RandomStream& stream) { return Shifted(images, stream, 2); }

// Cropping a padded image at a random place is a shift by up to the padding.
torch::Tensor PadAndCrop(const torch::Tensor& images, RandomStream& stream) { return Shifted(images, stream, 4); }

torch::Tensor Flip(const torch::Tensor& images, RandomStream& stream) {
  std::vector<std::int64_t> chosen;
  for (std::int64_t n = 0; n < images.size(0); ++n) {
    if (stream.Next() >> 63) chosen.push_back(n);
  }
  const torch::Tensor index =
      torch::from_blob(chosen.data(), {static_cast<std::int64_t>(chosen.size())}, torch::kInt64);
  torch::Tensor result = images.clone();
  return result.index_copy_(0, index, images.index_select(0, index).flip({3}));
}

}  // namespace

const std::vector<Augmentation>& Augmentations() {
  static const std::vector<Augmentation> augmentations = {
      {"shift", "moves an image by up to 2 pixels each way; zeros move in", Shift},
      {"flip", "mirrors an image left to right with probability 1/2", Flip},
      {"pad-and-crop", "pads an image with 4 zeros on each side and crops it to its size at a random place",
       PadAndCrop},
  };
  return augmentations;
}

torch::Tensor Distorted(const torch::Tensor& images, RandomStream& stream) {
  const std::int64_t n = images.size(0);
  if (n == 0 || images.size(2) < kLeastPicture || images.size(3) < kLeastPicture) return images;
  torch::Tensor maps = torch::empty({n, 2, 3});
  auto map = maps.accessor<float, 3>();
  for (std::int64_t i = 0; i < n; ++i) {
    const double angle = stream.Uniform(-0.15, 0.15), shear = stream.Uniform(-0.1, 0.1);
    const double wide = stream.Uniform(0.93, 1.07), high = stream.Uniform(0.93, 1.07);
    map[i][0][0] = static_cast<float>(std::cos(angle) * wide);
    map[i][0][1] = static_cast<float>(-std::sin(angle) * high + shear);
    map[i][1][0] = static_cast<float>(std::sin(angle) * wide);
    map[i][1][1] = static_cast<float>(std::cos(angle) * high);
    for (int axis = 0; axis < 2; ++axis) map[i][axis][2] = static_cast<float>(stream.Uniform(-1.0, 1.0) / 14.0);
  }
  const torch::Tensor grid = torch::affine_grid_generator(maps, images.sizes(), /*align_corners=*/false);
  return torch::grid_sampler(images, grid, /*interpolation_mode=*/0, /*padding_mode=*/1, /*align_corners=*/false);
}

torch::Tensor Blended(const torch::Tensor& images, std::int64_t count) {
  const torch::Tensor chosen = images.slice(0, 0, count).to(torch::kFloat32);
  return (chosen + images.roll(-1, 0).slice(0, 0, count)) / 2.0;
}

torch::Tensor Shapes(const torch::Tensor& images, std::int64_t count, RandomStream& stream) {
  const torch::Tensor lows = images.amin({0, 2, 3}).to(torch::kFloat32), highs = images.amax({0, 2, 3});
  const std::int64_t channels = images.size(1), height = images.size(2), width = images.size(3);
  const auto field = [&](std::int64_t planes) {  // smooth, [planes, height, width]
    const auto knots = static_cast<std::int64_t>(kFewestKnots + stream.Index(kMostKnots - kFewestKnots + 1));
    torch::Tensor coarse = torch::empty({1, planes, knots, knots});
    float* value = coarse.data_ptr<float>();
    for (std::int64_t i = 0; i < coarse.numel(); ++i) value[i] = static_cast<float>(stream.Uniform(0.0, 1.0));
    return torch::upsample_bilinear2d(coarse, {height, width}, /*align_corners=*/true).squeeze(0);
  };
  std::vector<torch::Tensor> shapes;
  for (std::int64_t i = 0; i < count; ++i) {
    const torch::Tensor surface = field(channels), outline = field(1);
    shapes.push_back(i % 2 == 0 ? surface * outline.gt(0.5) : surface);
  }
  if (shapes.empty()) return torch::empty({0, channels, height, width});
  return lows.view({-1, 1, 1}) + torch::stack(shapes) * (highs - lows).view({-1, 1, 1});
}

torch::Tensor Rearranged(const torch::Tensor& images, std::int64_t count, RandomStream& stream) {
  const std::int64_t height = images.size(2), width = images.size(3);
  // Places of one axis in blocks of nearly equal size, the blocks in random order, perhaps back to front.
  const auto places = [&](std::int64_t size, std::int64_t blocks) {
    std::vector<std::int64_t> order;
    for (const std::int64_t block : stream.Permutation(blocks)) {
      for (std::int64_t at = block * size / blocks; at < (block + 1) * size / blocks; ++at) order.push_back(at);
    }
    if (stream.Next() >> 63) std::reverse(order.begin(), order.end());
    return torch::tensor(order);
  };
  torch::Tensor result = torch::empty({count, images.size(1), height, width});
  const torch::Tensor ends = images.amin({0, 2, 3}).to(torch::kFloat32) + images.amax({0, 2, 3});
  for (std::int64_t i = 0; i < count; ++i) {
    torch::Tensor image = images[i];
    if (stream.Next() >> 63) image = ends.view({-1, 1, 1}) - image;
    if (height == width && stream.Next() >> 63) image = image.transpose(1, 2);
    const std::int64_t blocks = std::int64_t{1} << stream.Index(3);
    const torch::Tensor rows = places(height, blocks), columns = places(width, blocks);
    result[i].copy_(image.index_select(1, rows).index_select(2, columns));
  }
  return result;
}

const Augmentation& FindAugmentation(const std::string& name) {
  return FindByName(Augmentations(), "augmentation", name);
}

}  // namespace bitplan
