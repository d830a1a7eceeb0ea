#include "models/architectures/blocks.h"

#include <fmt/format.h>

namespace bitplan {

torch::jit::Module ModuleMaker::Empty(const std::string& type) const {
  torch::jit::Module module(c10::QualifiedName("__torch__.bitplan." + type), unit_, /*shouldMangle=*/true);
  module.register_attribute("training", c10::BoolType::get(), true);
  return module;
}

torch::jit::Module ModuleMaker::Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                                       std::int64_t padding, bool bias) const {
  torch::jit::Module module = Empty("Conv2d");
  module.register_parameter("weight", torch::empty({out, in, kernel, kernel}), false);
  if (bias) module.register_parameter("bias", torch::empty({out}), false);
  module.define(fmt::format(R"(
def forward(self, x):
    return torch.conv2d(x, self.weight, {0}, [{1}, {1}], [{2}, {2}], [1, 1], 1)
)",
                            bias ? "self.bias" : "None", stride, padding));
  return module;
}

torch::jit::Module ModuleMaker::Linear(std::int64_t in, std::int64_t out) const {
  torch::jit::Module module = Empty("Linear");
  module.register_parameter("weight", torch::empty({out, in}), false);
  module.register_parameter("bias", torch::empty({out}), false);
  module.define(R"(
def forward(self, x):
    return torch.linear(x, self.weight, self.bias)
)");
  return module;
}

torch::jit::Module ModuleMaker::Dropout() const {
  torch::jit::Module module = Empty("Dropout");
  module.register_attribute("probability", c10::FloatType::get(), 0.0);
  module.define(R"(
def forward(self, x):
    return torch.dropout(x, self.probability, self.training)
)");
  return module;
}

torch::jit::Module ModuleMaker::BatchNorm2d(std::int64_t channels) const {
  torch::jit::Module module = Empty("BatchNorm2d");
  module.register_parameter("weight", torch::empty({channels}), false);
  module.register_parameter("bias", torch::empty({channels}), false);
  module.register_buffer("running_mean", torch::zeros({channels}));
  module.register_buffer("running_var", torch::ones({channels}));
  module.define(R"(
def forward(self, x):
    return torch.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, self.training, 0.1, 1e-05, False)
)");
  return module;
}

}  // namespace bitplan
