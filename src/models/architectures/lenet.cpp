// LeNet-5 with rectified units, LeNet-5 as in Caffe's MNIST example (no activation after the convolutions), and the
// fully connected LeNet-300-100.
#include "models/architectures/blocks.h"
#include "models/architectures/list.h"

namespace bitplan {

torch::jit::Module BuildLenet5() {
  const ModuleMaker make;
  torch::jit::Module module = make.Empty("Lenet5");
  module.register_module("conv1", make.Conv2d(1, 6, 5, 1, 2, true));
  module.register_module("conv2", make.Conv2d(6, 16, 5, 1, 0, true));
  module.register_module("fc1", make.Linear(400, 120));
  module.register_module("fc2", make.Linear(120, 84));
  module.register_module("dropout", make.Dropout());
  module.register_module("fc3", make.Linear(84, 10));
  module.define(R"(
def forward(self, x):
    x = torch.max_pool2d(torch.relu(self.conv1.forward(x)), [2, 2], [2, 2])
    x = torch.max_pool2d(torch.relu(self.conv2.forward(x)), [2, 2], [2, 2])
    x = torch.relu(self.fc1.forward(torch.flatten(x, 1)))
    x = torch.relu(self.fc2.forward(self.dropout.forward(x)))
    return self.fc3.forward(self.dropout.forward(x))
)");
  return module;
}

torch::jit::Module BuildLenet5Caffe() {
  const ModuleMaker make;
  torch::jit::Module module = make.Empty("Lenet5Caffe");
  module.register_module("conv1", make.Conv2d(1, 20, 5, 1, 0, true));
  module.register_module("conv2", make.Conv2d(20, 50, 5, 1, 0, true));
  module.register_module("fc1", make.Linear(800, 500));
  module.register_module("dropout", make.Dropout());
  module.register_module("fc2", make.Linear(500, 10));
  module.define(R"(
def forward(self, x):
    x = torch.max_pool2d(self.conv1.forward(x), [2, 2], [2, 2])
    x = torch.max_pool2d(self.conv2.forward(x), [2, 2], [2, 2])
    x = torch.relu(self.fc1.forward(torch.flatten(x, 1)))
    return self.fc2.forward(self.dropout.forward(x))
)");
  return module;
}

torch::jit::Module BuildLenet300100() {
  const ModuleMaker make;
  torch::jit::Module module = make.Empty("Lenet300100");
  module.register_module("fc1", make.Linear(784, 300));
  module.register_module("fc2", make.Linear(300, 100));
  module.register_module("dropout", make.Dropout());
  module.register_module("fc3", make.Linear(100, 10));
  module.define(R"(
def forward(self, x):
    x = self.dropout.forward(torch.relu(self.fc1.forward(torch.flatten(x, 1))))
    x = self.dropout.forward(torch.relu(self.fc2.forward(x)))
    return self.fc3.forward(x)
)");
  return module;
}

}  // namespace bitplan
