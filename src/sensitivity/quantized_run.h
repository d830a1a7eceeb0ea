// A network whose layers, and the tensors that they read, can be quantized one by one and run on a fixed set of
// training images.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "bitplan/models/batch_norm.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "posterior/finite.h"
#include "quantizers/rounded_reads.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/units.h"

namespace bitplan {

// Where the network has batch norm and inputs.quantizer.centring counts on it, every run moves the change of the
// batch-norm statistics along (method `transfer`, in order, in the same pass), because the plan will be corrected too;
// then all images go through at once. Otherwise minibatches of 128. `inputs` must outlive it.
class QuantizedRun {
 public:
  // `activations`, which must outlive it: null where activations stay in float.
  QuantizedRun(const SensitivityInputs& inputs, std::int64_t samples, const char* stream,
               const ActivationLevels* activations = nullptr);

  static constexpr int kFloat = -1;
  // Quantizes a layer to inputs.widths[column], or back to float.
  void Set(std::size_t layer, int column);
  // Rounds a tensor, named by its first reader, to activations->widths[column], or not.
  void SetActivation(std::size_t tensor, int column);
  // [n, classes] of all images, or of the first `first`.
  [[nodiscard]] torch::Tensor Logits(std::int64_t first = 0);
  // Error(kData) that names the image unless all outputs of the network in float are sound.
  void RequireSound(const torch::Tensor& logits) const {
    bitplan::RequireSound(logits, inputs_.network.module, inputs_.train, index_, inputs_.normalizer);
  }
  [[nodiscard]] const torch::Tensor& images() const { return images_; }  // normalized [n, ...]
  [[nodiscard]] std::int64_t step() const;                               // images of a minibatch
  [[nodiscard]] bool corrects() const { return correct_; }
  [[nodiscard]] const torch::Tensor& labels() const { return labels_; }  // [n, ...]
  [[nodiscard]] const QuantizedLayers& quantized() const { return quantized_; }

 private:
  [[nodiscard]] torch::Tensor Corrected(const torch::Tensor& images);

  const SensitivityInputs& inputs_;
  QuantizedLayers quantized_;
  const ActivationLevels* activations_;
  std::optional<RoundedReads> reads_;  // where activations are rounded
  torch::jit::Module module_;
  torch::Tensor index_;  // rows of the training images
  torch::Tensor images_, labels_;
  std::vector<int> columns_;  // kFloat or what is in the module now
  bool correct_;
  BatchNormTransfer trained_;                            // before its first pass
  std::map<std::int64_t, BatchNormTransfer> transfers_;  // by the number of images that go through
};

}  // namespace bitplan
