// The likelihood of a quantized network on minibatches of training images (core/likelihood_oracle.h).
#pragma once

#include <memory>

#include "bitplan/core/likelihood_oracle.h"
#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

// Minibatches of `batch` labelled training images in a random order by `inputs.seed`. Where a network has batch norm
// and inputs.quantizer.centring counts on it, every pass takes the statistics of its own minibatch, because the plan
// will be corrected too; gradients go through them. Where plans are rounded by compensation, so is every layer here,
// each as if it alone were quantized (src/sensitivity/compensated_layers.h). Holds the quantized weights of all widths:
// widths times the memory of the model. Works on a clone; `inputs` and what it refers to must outlive it.
[[nodiscard]] std::unique_ptr<LikelihoodOracle> MakeNetworkOracle(const SensitivityInputs& inputs, int batch);

}  // namespace bitplan
