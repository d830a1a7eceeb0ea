// ResNet-20 for 32 x 32 images (He et al. 2016, arXiv 1512.03385, section 4.2): three stages of three blocks. Shortcuts
// across stages are of option A: every second pixel, new channels filled with zeros; they have no weights.
#include <fmt/format.h>

#include "models/architectures/blocks.h"
#include "models/architectures/list.h"

namespace bitplan {
namespace {

torch::jit::Module Block(const ModuleMaker& make, std::int64_t in, std::int64_t out) {
  torch::jit::Module block = make.Empty("Block");
  block.register_module("conv1", make.Conv2d(in, out, 3, out / in, 1, false));
  block.register_module("bn1", make.BatchNorm2d(out));
  block.register_module("conv2", make.Conv2d(out, out, 3, 1, 1, false));
  block.register_module("bn2", make.BatchNorm2d(out));
  const std::int64_t fill = (out - in) / 2;
  const std::string shortcut =
      fill == 0 ? "x" : fmt::format("torch.constant_pad_nd(x[:, :, ::2, ::2], [0, 0, 0, 0, {0}, {0}], 0)", fill);
  block.define(fmt::format(R"(
def forward(self, x):
    y = torch.relu(self.bn1.forward(self.conv1.forward(x)))
    y = self.bn2.forward(self.conv2.forward(y))
    return torch.relu(y + {})
)",
                           shortcut));
  return block;
}

torch::jit::Module Stage(const ModuleMaker& make, std::int64_t in, std::int64_t out) {
  torch::jit::Module stage = make.Empty("Stage");
  stage.register_module("0", Block(make, in, out));
  stage.register_module("1", Block(make, out, out));
  stage.register_module("2", Block(make, out, out));
  stage.define(R"(
def forward(self, x):
    x = getattr(self, "0").forward(x)
    x = getattr(self, "1").forward(x)
    return getattr(self, "2").forward(x)
)");
  return stage;
}

}  // namespace

torch::jit::Module BuildResnet20() {
  const ModuleMaker make;
  torch::jit::Module module = make.Empty("Resnet20");
  module.register_module("conv1", make.Conv2d(3, 16, 3, 1, 1, false));
  module.register_module("bn1", make.BatchNorm2d(16));
  module.register_module("layer1", Stage(make, 16, 16));
  module.register_module("layer2", Stage(make, 16, 32));
  module.register_module("layer3", Stage(make, 32, 64));
  module.register_module("dropout", make.Dropout());
  module.register_module("linear", make.Linear(64, 10));
  module.define(R"(
def forward(self, x):
    x = torch.relu(self.bn1.forward(self.conv1.forward(x)))
    x = self.layer3.forward(self.layer2.forward(self.layer1.forward(x)))
    x = torch.flatten(torch.adaptive_avg_pool2d(x, [1, 1]), 1)
    return self.linear.forward(self.dropout.forward(x))
)");
  return module;
}

}  // namespace bitplan
