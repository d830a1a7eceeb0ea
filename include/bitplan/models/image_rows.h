// Which rows of what a layer sees belong to which image: the dimension of the images is the network's own affair.
//
// A linear layer sees rows (all dimensions but the last: of [N, T, C] there are N T), a convolution images or parts of
// them (dimension 0). Row r belongs to image floor(r / inner) mod N. Images first, [N, T, C] or [N T, C], is inner = T;
// time first, [T, N, C] or [T N, C], as attention and recurrent layers like it, is inner = 1.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

class ImageRows {
 public:
  // By two passes of the float network over a few images, in the second of which every other image is another one: the
  // rows that change are theirs. `images`: float32 normalized [N, C, H, W], N > 0.
  ImageRows(const Network& network, const torch::Tensor& images);

  // False where rows of one image cannot be told from those of another: a layer that these images do not reach, one
  // that gets the rows of a choice among images, one whose answers depend on the other images of the batch, and an
  // embedding, which gets indices.
  [[nodiscard]] bool Known(std::size_t layer) const { return rows_[layer].inner > 0; }
  // Whether `values` (input or output of the layer when `images` images pass) has as many rows as it must have.
  [[nodiscard]] bool Fits(std::size_t layer, const torch::Tensor& values, std::int64_t images) const;
  // The rows of the images begin .. end, [rows, ...]: of a linear layer [rows, C], of a convolution [rows, C, ...].
  // Where that cannot be known, the same share of all rows.
  [[nodiscard]] torch::Tensor Of(std::size_t layer, const torch::Tensor& values, std::int64_t images,
                                 std::int64_t begin, std::int64_t end) const;

 private:
  struct Rows {
    std::int64_t per_image = 0;
    std::int64_t inner = 0;  // 0: not known
  };
  std::vector<bool> is_convolution_;
  std::vector<Rows> rows_;
};

}  // namespace bitplan
