// Describes a built-in architecture, and writes and reads a quantized network, with the installed library.
#include <bitplan/exporters/quantized_network.h>
#include <bitplan/models/architectures.h>
#include <bitplan/models/network.h>

#include <cstdio>

int main() {
  const auto& architecture = bitplan::FindArchitecture("lenet5-caffe");
  const auto network = bitplan::DescribeNetwork(bitplan::BuildArchitecture(architecture.name, 1), architecture.name,
                                                architecture.input_shape);
  std::printf("%lld weights\n", static_cast<long long>(network.quantizable_weights()));

  bitplan::QuantizedTensor weight;
  weight.bits = 2;
  weight.codes = torch::tensor({-2, 1, 0, -1}, torch::kInt8).reshape({2, 2});
  weight.scales = torch::tensor({0.5F, -1.0F});
  bitplan::QuantizedNetwork quantized;
  quantized.layers.push_back({"fc", "fc.weight", {weight}});
  bitplan::SaveQuantizedNetwork(quantized, "consumer.safetensors");
  const auto loaded = bitplan::LoadQuantizedNetwork("consumer.safetensors");
  const bool same = torch::equal(loaded.layers.at(0).Values(), torch::tensor({{-1.0F, 0.5F}, {0.0F, 1.0F}}));
  std::printf("%lld bytes of codes and scales\n", static_cast<long long>(loaded.payload_bytes()));
  return network.quantizable_weights() == 430500 && same ? 0 : 1;
}
