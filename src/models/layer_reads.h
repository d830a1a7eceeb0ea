// Where in a graph the layers read their inputs: the operations that multiply by a layer's weight.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

struct LayerRead {
  std::size_t layer;
  torch::jit::Node* node;
  std::size_t input;  // of the node: the activations
};

// `graph`: the inlined forward of `module`, which is network.module or a clone of it. A
// layer whose weight the graph does not read from an attribute, or changes before it multiplies, has no entry.
[[nodiscard]] std::vector<LayerRead> FindLayerReads(torch::jit::Graph& graph, const torch::jit::Module& module,
                                                    const Network& network);

// Of every layer whether the forward of network.module has a place for it.
[[nodiscard]] std::vector<bool> LayersRead(const Network& network);

// Error(kData) that names the layer where `reads` have no place for it.
void RequirePlace(const Network& network, const std::vector<LayerRead>& reads, std::size_t layer);

// Before this node stands what is inserted right behind the making of a value.
[[nodiscard]] torch::jit::Node* NodeBehind(torch::jit::Value* value);

// The values of a graph that layers read, each with the layers that read it.
using ReadValues = std::vector<std::pair<torch::jit::Value*, std::vector<std::size_t>>>;
[[nodiscard]] ReadValues ValuesOf(const std::vector<LayerRead>& reads);

// Of each of `layers` layers the first one that it hangs together with by the values that they read; itself where there
// is none.
[[nodiscard]] std::vector<std::size_t> FirstReaders(const ReadValues& values, std::size_t layers);

// Layers of the network's own forward that read one and the same value and no other, two or more of them, in their
// order.
[[nodiscard]] std::vector<std::vector<std::size_t>> ReadersOfOneValue(const Network& network);

// The same of the network's own forward: of every layer the first one, in the network's order, that reads the same
// tensor.
[[nodiscard]] std::vector<std::size_t> SharedInputs(const Network& network);

}  // namespace bitplan
