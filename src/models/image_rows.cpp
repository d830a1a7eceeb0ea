#include "bitplan/models/image_rows.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr std::int64_t kTriedImages = 8;

torch::Tensor AsRows(const torch::Tensor& values, bool is_convolution) {
  return is_convolution ? values : values.reshape({-1, values.size(-1)});
}

// The input rows of every layer in one pass; undefined where none came.
std::vector<torch::Tensor> InputRows(const Network& network, const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> rows(network.layers.size());
  torch::jit::Module module = network.module;
  const auto keep = [&](std::size_t layer, const torch::Tensor& input) {
    const Layer& of = network.layers[layer];
    const auto least = of.is_convolution() ? static_cast<std::int64_t>(of.position_dims()) + 1 : 0;
    const bool has_rows = of.multiplies() && input.numel() > 0 && input.dim() > least;
    rows[layer] = has_rows ? AsRows(input, of.is_convolution()).flatten(1).clone() : torch::Tensor();
  };
  const Tap tap(network, module, {.on_layer_input = keep, .on_layer_output = nullptr, .on_batch_norm_input = nullptr});
  (void)RunForward(module, images);
  return rows;
}

// `changed`: which rows change with the odd ones among `images` images. 0 when no order of the rows explains it.
std::int64_t Inner(const torch::Tensor& changed, std::int64_t images) {
  const std::int64_t per_image = changed.size(0) / images;
  const auto* const is_changed = changed.data_ptr<bool>();
  for (std::int64_t inner = per_image; inner >= 1; --inner) {
    if (per_image % inner != 0) continue;
    bool explains = true;
    for (std::int64_t r = 0; r < changed.size(0) && explains; ++r) {
      explains = !is_changed[r] || r / inner % images % 2 == 1;
    }
    if (explains) return inner;
  }
  return 0;
}

}  // namespace

ImageRows::ImageRows(const Network& network, const torch::Tensor& images) : rows_(network.layers.size()) {
  for (const Layer& layer : network.layers) is_convolution_.push_back(layer.is_convolution());
  const std::int64_t count = std::min(kTriedImages, images.size(0));
  const torch::Tensor tried = images.slice(0, 0, count);
  const torch::Tensor other = tried.index_select(0, torch::arange(count).floor_divide(2).mul(2));
  const std::vector<torch::Tensor> first = InputRows(network, tried), second = InputRows(network, other);
  for (std::size_t l = 0; l < rows_.size(); ++l) {
    const torch::Tensor &a = first[l], &b = second[l];
    if (!a.defined() || !b.defined() || a.sizes() != b.sizes() || a.size(0) % count != 0) continue;
    rows_[l] = {a.size(0) / count, Inner(a.ne(b).any(1).contiguous(), count)};
  }
}

bool ImageRows::Fits(std::size_t layer, const torch::Tensor& values, std::int64_t images) const {
  if (!Known(layer) || values.numel() == 0) return false;
  const std::int64_t rows = is_convolution_[layer] ? values.size(0) : values.numel() / values.size(-1);
  return rows == rows_[layer].per_image * images;
}

torch::Tensor ImageRows::Of(std::size_t layer, const torch::Tensor& values, std::int64_t images, std::int64_t begin,
                            std::int64_t end) const {
  const torch::Tensor rows = AsRows(values, is_convolution_[layer]);
  if (!Fits(layer, values, images)) {
    return rows.slice(0, rows.size(0) * begin / images, rows.size(0) * end / images);
  }
  const std::int64_t inner = rows_[layer].inner;
  std::vector<std::int64_t> shape = rows.sizes().vec();
  shape[0] = inner;
  shape.insert(shape.begin(), {rows.size(0) / images / inner, images});
  return rows.reshape(shape).slice(1, begin, end).flatten(0, 2);
}

}  // namespace bitplan
