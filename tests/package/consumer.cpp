// Describes a built-in architecture with the installed library.
#include <bitplan/models/architectures.h>
#include <bitplan/models/network.h>

#include <cstdio>

int main() {
  const auto& architecture = bitplan::FindArchitecture("lenet5-caffe");
  const auto network = bitplan::DescribeNetwork(bitplan::BuildArchitecture(architecture.name, 1), architecture.name,
                                                architecture.input_shape);
  std::printf("%lld weights\n", static_cast<long long>(network.quantizable_weights()));
  return network.quantizable_weights() == 430500 ? 0 : 1;
}
