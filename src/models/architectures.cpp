#include "bitplan/models/architectures.h"

#include <cmath>

#include "bitplan/core/random.h"
#include "bitplan/core/suggest.h"
#include "bitplan/models/network.h"
#include "models/architectures/list.h"

namespace bitplan {

const std::vector<Architecture>& Architectures() {
  static const std::vector<Architecture> list = {
      {"lenet5",
       "LeNet-5: two 5x5 convolutions and three linear layers, rectified; 61,470 weights",
       {1, 28, 28},
       10,
       &BuildLenet5},
      {"lenet5-caffe",
       "two 5x5 convolutions and two linear layers, as in Caffe; 430,500 weights",
       {1, 28, 28},
       10,
       &BuildLenet5Caffe},
      {"lenet-300-100", "three linear layers; 266,200 weights", {1, 28, 28}, 10, &BuildLenet300100},
      {"resnet20",
       "ResNet-20 for CIFAR-10, shortcuts without weights; 268,336 weights",
       {3, 32, 32},
       10,
       &BuildResnet20},
      {"vgg16-bn", "VGG-16 with batch norm for CIFAR-10; 14,715,584 weights", {3, 32, 32}, 10, &BuildVgg16Bn},
  };
  return list;
}

const Architecture& FindArchitecture(const std::string& name) {
  return FindByName(Architectures(), "architecture", name);
}

torch::jit::Module BuildArchitecture(const std::string& name, std::uint64_t seed) {
  torch::NoGradGuard no_grad;
  torch::jit::Module module = FindArchitecture(name).build();
  RandomStream stream(seed, "model/init");
  for (const auto& [path, parameter] : module.named_parameters()) {
    if (parameter.dim() < 2) {
      parameter.fill_(path.ends_with("bias") ? 0.0 : 1.0);
      continue;
    }
    const double fan_in = static_cast<double>(parameter.numel() / parameter.size(0));
    const double deviation = std::sqrt(1.0 / fan_in);
    auto* values = parameter.data_ptr<float>();
    for (std::int64_t i = 0; i < parameter.numel(); ++i) values[i] = static_cast<float>(deviation * stream.Normal());
  }
  SetTraining(module, false);
  return module;
}

void SetDropout(torch::jit::Module& module, double probability) {
  for (torch::jit::Module child : module.modules()) {
    if (child.hasattr("probability")) child.setattr("probability", probability);
  }
}

}  // namespace bitplan
