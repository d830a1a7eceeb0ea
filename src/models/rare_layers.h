// Layers that only some inputs reach.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <set>
#include <string>

#include "bitplan/models/network.h"

namespace bitplan {

// Whether a weight of the network has no use so far.
[[nodiscard]] bool HasUnusedWeights(const Network& network);

// Passes `images` [n, ...] while there are such weights, and adds the layers that they are. `written`: as of
// RecordPass.
void AddRareLayers(Network& network, std::set<std::string>& written, const torch::jit::Graph& graph,
                   const torch::Tensor& images);

}  // namespace bitplan
