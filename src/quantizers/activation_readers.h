// What layers make of the activations that they read, for ranges that look at outputs.
#pragma once

#include <torch/types.h>

#include <cstddef>

#include "bitplan/models/network.h"
#include "bitplan/quantizers/affine_quantizer.h"

namespace bitplan {

// Adds to `sample` some of the inputs that `layer` of the network multiplies its weights by, of a minibatch `input` of
// the tensor. Nothing for a layer whose inputs are not known (models/layer_inputs.h).
void AddReader(const Network& network, std::size_t layer, const torch::Tensor& input, at::Generator& generator,
               ActivationSample& sample);

}  // namespace bitplan
