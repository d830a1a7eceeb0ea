// VGG-16 for 32 x 32 images: 13 convolutions with batch norm, five poolings, one linear layer (Simonyan and Zisserman
// 2015, arXiv 1409.1556; the CIFAR form with a single 512-10 classifier).
#include <fmt/format.h>

#include <array>

#include "models/architectures/blocks.h"
#include "models/architectures/list.h"

namespace bitplan {

torch::jit::Module BuildVgg16Bn() {
  constexpr int kPool = 0;
  constexpr std::array kPlan = {64,    64,  kPool, 128, 128,   kPool, 256, 256, 256,
                                kPool, 512, 512,   512, kPool, 512,   512, 512, kPool};
  const ModuleMaker make;
  torch::jit::Module features = make.Empty("Features");
  // Submodules are numbered as in a sequence where activation and pooling count too: 0 conv, 1 batch norm, 2 relu, ...
  std::string text = "def forward(self, x):\n";
  std::int64_t channels = 3;
  int index = 0;
  for (const int width : kPlan) {
    if (width == kPool) {
      text += "    x = torch.max_pool2d(x, [2, 2], [2, 2])\n";
      index += 1;
      continue;
    }
    features.register_module(std::to_string(index), make.Conv2d(channels, width, 3, 1, 1, false));
    features.register_module(std::to_string(index + 1), make.BatchNorm2d(width));
    text += fmt::format("    x = torch.relu(getattr(self, \"{}\").forward(getattr(self, \"{}\").forward(x)))\n",
                        index + 1, index);
    channels = width;
    index += 3;
  }
  features.define(text + "    return x\n");

  torch::jit::Module module = make.Empty("Vgg16Bn");
  module.register_module("features", features);
  module.register_module("dropout", make.Dropout());
  module.register_module("classifier", make.Linear(512, 10));
  module.define(R"(
def forward(self, x):
    return self.classifier.forward(self.dropout.forward(torch.flatten(self.features.forward(x), 1)))
)");
  return module;
}

}  // namespace bitplan
