// Runs the example of the packed file with the installed library, on a network of one layer. The example of run.h is
// compiled alone: it trains a network.
#undef NDEBUG
#include <cassert>

#include "packed_example.h"
#include "run_example.h"

namespace {

// The float network, and its codes beside it.
void WriteNetwork() {
  torch::jit::Module layer("layer"), network("network");
  layer.register_parameter("weight", torch::tensor({{-0.9F, 0.4F}, {0.1F, 0.8F}}), /*is_buffer=*/false);
  network.register_module("fc", layer);
  network.define("def forward(self, x):\n  return x @ self.fc.weight.t()\n");
  network.save("model.pt");
  bitplan::QuantizedTensor weight;
  weight.bits = 2;
  weight.codes = torch::tensor({-2, 1, 0, -1}, torch::kInt8).reshape({2, 2});
  weight.scales = torch::tensor({0.5F, -1.0F});
  bitplan::QuantizedNetwork quantized;
  quantized.layers.push_back({"fc", "fc.weight", {weight}});
  bitplan::SaveQuantizedNetwork(quantized, "quantized.safetensors");
}

}  // namespace

int main() {
  WriteNetwork();
  packed_example();
  const auto loaded = bitplan::LoadQuantizedNetwork("quantized.safetensors");
  assert(torch::equal(loaded.layers.at(0).Values(), torch::tensor({{-1.0F, 0.5F}, {0.0F, 1.0F}})));
}
