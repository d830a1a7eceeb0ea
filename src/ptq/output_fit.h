// Least squares between the outputs of a quantized layer and those of the float one, channel by channel.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "bitplan/models/image_rows.h"
#include "bitplan/models/network.h"

namespace bitplan {

// The outputs of the float network that quantized layers can be fitted to. Both networks get the same images in one
// batch, so that their outputs correspond value for value wherever the images lie in them.
class OutputReference {
 public:
  OutputReference() = default;  // of no layer
  // Finds the layers by passes of a few images: of those in `changed` [layers] the ones that are used once and feed no
  // batch norm (which would undo the fit). How many images' outputs are kept is bounded by 256 MiB for all layers
  // together.
  OutputReference(const Network& network, const std::vector<bool>& changed, const torch::Tensor& images);

  [[nodiscard]] const std::vector<std::size_t>& layers() const { return layers_; }  // to be fitted, ascending
  // Keeps what is wanted of the float layer's output for all images at once; ignored unless it is one of layers().
  void Keep(std::size_t layer, const torch::Tensor& output);

  struct Pair {
    torch::Tensor quantized, target;  // [rows, C] or [rows, C, H, W], the same rows of both
  };
  // Rows of the quantized layer's `output` for the same images with those kept of the float one; empty for other
  // layers, and where the two networks did not send the same rows through the layer.
  [[nodiscard]] std::optional<Pair> Find(std::size_t layer, const torch::Tensor& output) const;

 private:
  [[nodiscard]] torch::Tensor Wanted(std::size_t layer, const torch::Tensor& output) const;

  std::vector<std::size_t> layers_;
  std::vector<torch::Tensor> outputs_;  // order of layers_
  std::optional<ImageRows> rows_;
  std::int64_t images_ = 0, kept_ = 0;
};

// Of every layer, whether quantization changed its weights.
[[nodiscard]] std::vector<bool> ChangedLayers(const Network& network, const torch::jit::Module& quantized);

// Fits pair.quantized to pair.target, writes scale and shift into the bias of `layer` in `quantized`, and into
// `output`, all of the quantized layer's output, in place. Returns the scales, float32 [channels], for the layer's
// weight; with `one_scale` all are the same. `limit`: from the best scales to those that the weight can take; empty:
// all.
using FactorLimit = std::function<torch::Tensor(const torch::Tensor& factors)>;
[[nodiscard]] torch::Tensor FitOutput(const Layer& layer, torch::jit::Module& quantized,
                                      const OutputReference::Pair& pair, const torch::Tensor& output, bool one_scale,
                                      const FactorLimit& limit = {});

}  // namespace bitplan
