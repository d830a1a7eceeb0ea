// The levels that every tensor of activations is rounded to at every width: what all metrics and the measurement of
// plans of weights and activations look at.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bitplan/quantizers/affine_quantizer.h"
#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

struct ActivationLevels {
  std::vector<int> widths;           // ascending, each 2..8 or 16
  std::vector<std::size_t> tensors;  // of every layer the first one that reads the same tensor
  // [layers][widths]; empty but for tensors at first readers. Those of a tensor that no graph can round do not round.
  std::vector<std::vector<AffineQuantizer>> quantizers;

  // The tensors that can be rounded, by first readers.
  [[nodiscard]] bool rounds(std::size_t layer) const { return !quantizers[layer].empty(); }
};

// On 256 images of the stream "sensitivity/activation-ranges". `range` as FitActivation has it. Error(kData) for
// activations that are not finite.
[[nodiscard]] ActivationLevels FitActivationLevels(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                                   const std::string& range);

}  // namespace bitplan
