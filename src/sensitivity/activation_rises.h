// What rounding the input of a layer is expected to cost, before anything is rounded.
//
// The gradient g of a Fisher sketch of a minibatch (posterior/batches.h) with respect to a tensor of activations obeys,
// along its rounding error da, what it obeys for weights:
//   E[(g . da)^2] = 2 * (loss rise along da) * batch,
// one dot product per tensor and width for every backward pass. Rises of tensors add where their errors are
// independent; those of weights and activations likewise.
#pragma once

#include <string>
#include <vector>

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

struct ActivationRises {
  std::vector<int> widths;                     // ascending, each 2..8 or 16
  std::vector<std::size_t> tensors;            // of every layer the first one that reads the same tensor
  std::vector<std::vector<double>> loss_rise;  // [layers][widths], nats per sample; zeros but for first readers
};

// `range`: as FitActivation has it. Error(kData) where a gradient is not finite, or a layer's input has none.
[[nodiscard]] ActivationRises MeasureActivationRises(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                                     const std::string& range, ProgressSink& progress);

}  // namespace bitplan
