// The minibatches and random signs of the Fisher sketches by which a table is measured: those of weights and of
// activations are the same, whether they are taken in one pass or in two.
#pragma once

#include <torch/types.h>

#include <algorithm>
#include <cstdint>

#include "bitplan/core/random.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "posterior/batches.h"

namespace bitplan {

inline constexpr std::int64_t kSketchBatch = 16;  // small: every minibatch is one draw of the estimate

class SketchDraws {
 public:
  explicit SketchDraws(const SensitivityInputs& inputs) : inputs_(inputs), signs_(inputs.seed, "sensitivity/signs") {
    RandomStream draws(inputs.seed, "sensitivity/samples");
    index_ = DrawSamples(inputs.train, inputs.options.samples, draws);
  }

  [[nodiscard]] std::int64_t samples() const { return index_.size(0); }
  [[nodiscard]] std::int64_t batches() const { return (samples() + kSketchBatch - 1) / kSketchBatch; }
  // Of the minibatch that begins at an image: int64 [images].
  [[nodiscard]] torch::Tensor Rows(std::int64_t begin) const {
    return index_.slice(0, begin, std::min(begin + kSketchBatch, samples()));
  }
  // FisherSketch with the next signs.
  [[nodiscard]] torch::Tensor Sketch(const torch::Tensor& rows) {
    return FisherSketch(inputs_.network.module, inputs_.train, rows, inputs_.normalizer, signs_);
  }

 private:
  const SensitivityInputs& inputs_;
  torch::Tensor index_;
  RandomStream signs_;
};

}  // namespace bitplan
