// A quantized network as numbers: integer codes and scales of its layers, everything else in float, and the plan. It is
// what every exporter writes, and what the packed file (docs/formats.md) holds.
//
// Example: the weights of a packed file, and the float network with these weights.
//
//   #include <bitplan/exporters/quantized_network.h>
//   #include <torch/script.h>
//
//   #include <iostream>
//   const bitplan::QuantizedNetwork network = bitplan::LoadQuantizedNetwork("quantized.safetensors");
//   for (const bitplan::QuantizedLayer& layer : network.layers) {
//     std::cout << layer.parameter << ": " << layer.blocks.front().bits << " bits\n" << layer.Values() << '\n';
//   }
//   auto module = torch::jit::load("model.pt");  // the float network: its graph is not in the file
//   bitplan::WriteWeights(network, module);      // now its weights are those of quantized.pt, bit for bit
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/models/network.h"
#include "bitplan/quantizers/quantized_tensor.h"

namespace bitplan {

struct QuantizedLayer {
  std::string name;       // of the layer, as plans have it: "conv1"
  std::string parameter;  // of its weight: "conv1.weight"
  // Output channels of one width and grid, one after another along channel_dim; at least one block.
  std::vector<QuantizedTensor> blocks;

  [[nodiscard]] std::vector<std::int64_t> shape() const;  // of the weight
  // The weight: float32, bit for bit that of quantized.pt.
  [[nodiscard]] torch::Tensor Values() const;
};

// What forward of the network takes: [N, shape...].
struct NetworkInput {
  std::vector<std::int64_t> shape;  // empty: not known
  torch::ScalarType type = torch::kFloat32;
};

struct QuantizedNetwork {
  std::vector<QuantizedLayer> layers;  // in the order of the plan; those that are left in float are among `others`
  // Every other tensor that the module or its graph holds, in its own type: biases, batch norms, layers left alone,
  // masks. Names are attribute paths; "constant 3" is the third tensor in the graph itself.
  std::vector<std::pair<std::string, torch::Tensor>> others;
  std::map<std::string, std::string> tied;  // attribute path -> the name above that has the same numbers
  std::string plan;                         // plan.yaml as text, or empty
  std::string made_from;                    // hash of what of the plan the codes depend on, or empty
  NetworkInput input;                       // in codes.safetensors, for exporters that need the graph

  // Bytes of codes and scales in the packed file, and a byte for the width and grid of every block: what a plan states
  // as achieved.stored_bytes.
  [[nodiscard]] std::int64_t payload_bytes() const;
  [[nodiscard]] std::int64_t float_bytes() const;  // of `others`
};

// The network whose weights are `weights` [layers of `network`], the rest as `module` (a clone of network.module) holds
// it; undefined weights are left in float.
[[nodiscard]] QuantizedNetwork DescribeQuantized(const Network& network, const torch::jit::Module& module,
                                                 const std::vector<QuantizedTensor>& weights);
// Its layers alone.
[[nodiscard]] QuantizedNetwork DescribeCodes(const Network& network, const std::vector<QuantizedTensor>& weights);
// Adds everything that is not among the layers from the module that they belong to. Error(kData) when its weights are
// not those of the codes, bit for bit.
void AddOthers(QuantizedNetwork& network, const torch::jit::Module& module);

// The packed file, a safetensors file (docs/formats.md).
[[nodiscard]] std::string PackNetwork(const QuantizedNetwork& network);
// Its length, without packing anything.
[[nodiscard]] std::int64_t PackedNetworkBytes(const QuantizedNetwork& network);
// Written whole or not at all. Error(kIo).
void SaveQuantizedNetwork(const QuantizedNetwork& network, const std::filesystem::path& file);

// Error(kNotFound); Error(kData) that names the file when it is truncated, damaged (it holds a SHA-256 of itself) or of
// something else. `bytes`: the content of a file; `name`: for messages.
[[nodiscard]] QuantizedNetwork LoadQuantizedNetwork(const std::filesystem::path& file);
[[nodiscard]] QuantizedNetwork ParseQuantizedNetwork(const std::string& bytes, const std::string& name);

// Puts weights and all other tensors into a module with the same attributes; constants of a graph stay as they are.
// Error(kData) when an attribute is missing or has another shape.
void WriteWeights(const QuantizedNetwork& network, torch::jit::Module& module);

}  // namespace bitplan
