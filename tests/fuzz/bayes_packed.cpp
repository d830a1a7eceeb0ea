#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include "bitplan/bayes/stored_network.h"
#include "fuzz/targets.h"

namespace bitplan::fuzz {
namespace {

// Two linear layers, 3 -> 2 -> 2; the seeds were packed from it.
const Network& TwoLayers() {
  static const Network network = [] {
    torch::jit::Module module("two_layers");
    for (const auto& [name, columns] : {std::pair{"fc1", 3}, std::pair{"fc2", 2}}) {
      torch::jit::Module layer("layer");
      layer.register_parameter("weight", torch::arange(2 * columns, torch::kFloat).reshape({2, columns}) - 1, false);
      layer.register_parameter("bias", torch::zeros(2), false);
      module.register_module(name, layer);
    }
    module.define(
        "def forward(self, x):\n"
        "  x = torch.relu(torch.linear(torch.flatten(x, 1), self.fc1.weight, self.fc1.bias))\n"
        "  return torch.linear(x, self.fc2.weight, self.fc2.bias)\n");
    module.eval();
    return DescribeNetwork(module, "two-layers", {1, 1, 3});
  }();
  return network;
}

}  // namespace

void FuzzBayesPacked(std::string_view bytes) {
  const StoredNetwork stored = LoadPacked(FileOf("network.bpvn", bytes), TwoLayers());
  (void)stored.Draw(1, 0);
}

}  // namespace bitplan::fuzz
