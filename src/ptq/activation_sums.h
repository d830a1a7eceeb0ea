// Quantizers of what is added: part of QuantizeActivations.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstddef>
#include <functional>
#include <string>

#include "bitplan/models/network.h"
#include "bitplan/quantizers/affine_quantizer.h"

namespace bitplan {

// Puts quantizers before the terms of all sums (activations.h) of `graph`, the code of network.module with the
// quantizers of the layers in it. `run` passes images through network.module; the terms are sampled meanwhile. It
// returns how many times the network ran.
void RoundSums(const Network& network, torch::jit::Graph& graph, const std::string& range,
               const std::function<std::size_t()>& run);

}  // namespace bitplan
