// Least squares between the outputs of a quantized layer and those of the float one, channel by channel.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cstddef>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

// The outputs of the float network that quantized layers can be fitted to.
class OutputReference {
 public:
  OutputReference() = default;  // of no layer
  // Finds the layers by one pass of two images: used once, changed by quantization, and feeding no batch norm (which
  // would undo the fit). How many images' outputs are kept is bounded by 256 MiB for all layers together.
  OutputReference(const Network& network, const torch::jit::Module& quantized, const torch::Tensor& images);

  [[nodiscard]] const std::vector<std::size_t>& layers() const { return layers_; }  // to be fitted, ascending
  // The outputs of the next images at `layer`; ignored unless it is one of them and images are still wanted.
  void Add(std::size_t layer, const torch::Tensor& output);
  // The kept outputs [images, ...] of a layer, or an undefined tensor.
  [[nodiscard]] torch::Tensor Find(std::size_t layer) const;

 private:
  std::vector<std::size_t> layers_;
  std::vector<torch::Tensor> outputs_;  // [images, ...], order of layers_
  std::vector<std::int64_t> filled_;    // images so far
};

// Fits `output` (of the quantized layer, its first target.size(0) images are used) to `target`, writes scale and shift
// into weight and bias of `layer` in `quantized`, and into `output` itself, in place.
void FitOutput(const Layer& layer, torch::jit::Module& quantized, const torch::Tensor& target,
               const torch::Tensor& output, bool one_scale);

}  // namespace bitplan
