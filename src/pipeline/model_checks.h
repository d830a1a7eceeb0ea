// Whether a model is a classifier for the data at hand: what every sub-command that runs a model on data asks first.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"

namespace bitplan::pipeline {

// Training images that are tried where a zero input leaves weights unused (DescribeNetwork).
inline constexpr std::int64_t kDescribingImages = 2048;

// The first of them, normalized.
[[nodiscard]] torch::Tensor DescribingImages(const Dataset& train, const Normalizer& normalizer);

struct ModelFit {
  std::int64_t outputs = 0;  // classes that the logits tell apart
  std::string note;          // what answers depend on besides the image, one line (models/answers.h), where it may
};

// Tries the network on the first training images. Error(kData) in one line unless it answers every image with logits
// [1, outputs] of floats that are no probabilities, a batch with one row for each, and every label of `train` and of
// `others` (empty ones count nothing) is one of the outputs; unless `answers_may_vary` also where an answer depends on
// more than its image. The network is left as it was.
[[nodiscard]] ModelFit CheckModelFits(const Network& network, const Dataset& train,
                                      const std::vector<const Dataset*>& others, const Normalizer& normalizer,
                                      bool answers_may_vary);

}  // namespace bitplan::pipeline
