// Small networks and data for tests that need no files.
#pragma once

#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "support/catch_torch.h"

namespace bitplan::testing {

// A child with nothing but a weight, as layers without a bias are.
inline void AddLayer(torch::jit::Module& module, const std::string& name, const torch::Tensor& weight) {
  torch::jit::Module child(name);
  child.register_parameter("weight", weight, false);
  module.register_module(name, child);
}

// Softmax regression on [1, 1, features] inputs: logits = x W^T, weight N(0, scale^2).
inline Network SoftmaxRegression(std::int64_t features, std::int64_t classes, double scale, std::uint64_t seed = 7) {
  torch::manual_seed(seed);
  torch::jit::Module module("softmax_regression");
  AddLayer(module, "fc", torch::randn({classes, features}) * scale);
  module.define("def forward(self, x):\n  return torch.linear(torch.flatten(x, 1), self.fc.weight)\n");
  module.eval();
  return DescribeNetwork(module, "softmax-regression", {1, 1, features});
}

// conv 8 - bn - relu - conv 8 - bn - relu - mean - fc, batch-norm buffers far from those of N(0, 1) inputs. `first`:
// what the first batch norm sees.
inline Network ConvBatchNorm(std::uint64_t seed = 7, const std::string& first = "torch.conv2d(x, self.conv1.weight)") {
  torch::manual_seed(seed);
  torch::jit::Module module("conv_batch_norm");
  const auto add = [&](const char* name, const std::vector<std::pair<const char*, torch::Tensor>>& parameters,
                       const std::vector<std::pair<const char*, torch::Tensor>>& buffers) {
    torch::jit::Module child(name);
    for (const auto& [key, value] : parameters) child.register_parameter(key, value, false);
    for (const auto& [key, value] : buffers) child.register_buffer(key, value);
    module.register_module(name, child);
  };
  const auto norm = [&](const char* name) {
    add(name, {{"weight", torch::ones(8)}, {"bias", torch::zeros(8)}},
        {{"running_mean", torch::randn(8) * 0.3}, {"running_var", torch::rand(8) + 0.5}});
  };
  add("conv1", {{"weight", torch::randn({8, 1, 3, 3}) * 0.4}}, {});
  norm("bn1");
  add("conv2", {{"weight", torch::randn({8, 8, 3, 3}) * 0.15}}, {});
  norm("bn2");
  add("fc", {{"weight", torch::randn({4, 8})}}, {});
  module.define("def forward(self, x):\n  x = " + first + R"(
  x = torch.batch_norm(x, self.bn1.weight, self.bn1.bias, self.bn1.running_mean, self.bn1.running_var, False, 0.1, 1e-5, True)
  x = torch.conv2d(torch.relu(x), self.conv2.weight)
  x = torch.batch_norm(x, self.bn2.weight, self.bn2.bias, self.bn2.running_mean, self.bn2.running_var, False, 0.1, 1e-5, True)
  return torch.linear(torch.mean(torch.relu(x), [2, 3]), self.fc.weight)
)");
  module.eval();
  return DescribeNetwork(module, "conv-batch-norm", {1, 8, 8});
}

// Eight rows of eight pixels through one linear layer with a bias, then all of them through the last one; `rows` brings
// x [N, 8, 8] into the order that the first layer sees, `back` its outputs h into [N, 8, 16]. Same weights for the same
// seed, whatever the order.
inline Network RowNetwork(const std::string& rows, const std::string& back, std::uint64_t seed = 7) {
  torch::manual_seed(seed);
  torch::jit::Module module("rows");
  const auto add = [&](const char* name, const torch::Tensor& weight, const torch::Tensor& bias) {
    torch::jit::Module child(name);
    child.register_parameter("weight", weight, false);
    child.register_parameter("bias", bias, false);
    module.register_module(name, child);
  };
  add("emb", torch::randn({16, 8}).pow(3) * 0.3, torch::randn(16));
  add("fc", torch::randn({4, 128}) * 0.3, torch::randn(4));
  module.define("def forward(self, x):\n  x = x.squeeze(1)\n  h = torch.relu(torch.linear(" + rows +
                ", self.emb.weight, self.emb.bias))\n  h = " + back +
                "\n  return torch.linear(h.flatten(1), self.fc.weight, self.fc.bias)\n");
  module.eval();
  return DescribeNetwork(module, "rows", {1, 8, 8});
}
inline Network ImagesFirst() { return RowNetwork("x", "h"); }
inline Network RowsFirst() { return RowNetwork("x.transpose(0, 1)", "h.transpose(0, 1)"); }
inline Network RowsFirstMerged() {
  return RowNetwork("x.transpose(0, 1).reshape([-1, 8])", "h.reshape([8, -1, 16]).transpose(0, 1)");
}

// fc1 - fc2, and for the images brighter than `above` another last layer.
inline Network RareBranch(double above) {
  torch::manual_seed(5);
  torch::jit::Module module("rare_branch");
  for (const char* name : {"fc1", "fc2", "rare"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn({4, 4}), false);
    module.register_module(name, child);
  }
  module.register_buffer("above", torch::full({}, above));
  module.define(R"(
def forward(self, x):
  x = x.flatten(1)
  h = torch.relu(torch.linear(x, self.fc1.weight))
  y = torch.linear(h, self.fc2.weight)
  bright = x.mean([1]) > self.above
  if bool(bright.any()):
    y = torch.where(bright.unsqueeze(1), torch.linear(h, self.rare.weight), y)
  return y
)");
  return DescribeNetwork(module, "rare-branch", {1, 1, 4},
                         torch::cat({torch::zeros({1, 1, 1, 4}), torch::full({1, 1, 1, 4}, 9.0)}));
}

// fc1 - batch norm - fc2; only the images darker than `below`, a zero image among them, pass the batch norm.
inline Network RareBatchNorm(double below) {
  torch::manual_seed(6);
  torch::jit::Module module("rare_batch_norm");
  for (const char* name : {"fc1", "fc2"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn({4, 4}), false);
    module.register_module(name, child);
  }
  torch::jit::Module norm("bn");
  norm.register_buffer("running_mean", torch::randn(4) * 0.1);
  norm.register_buffer("running_var", torch::rand(4) + 0.5);
  module.register_module("bn", norm);
  module.register_buffer("below", torch::full({}, below));
  module.define(R"(
def forward(self, x):
  x = x.flatten(1)
  h = torch.linear(x, self.fc1.weight)
  dark = x.mean([1]) < self.below
  some = torch.batch_norm(h[dark], None, None, self.bn.running_mean, self.bn.running_var, False, 0.1, 1e-5, False)
  h = h.masked_scatter(dark.unsqueeze(1), some)
  return torch.linear(torch.relu(h), self.fc2.weight)
)");
  return DescribeNetwork(module, "rare-batch-norm", {1, 1, 4});
}

// n float images ~ N(0, 1) of one shape, labels drawn from the network's own predictions.
inline Dataset RandomImages(const Network& network, std::int64_t n, std::uint64_t seed = 11) {
  const torch::NoGradGuard no_grad;
  torch::manual_seed(seed);
  std::vector<std::int64_t> shape = network.input_shape;
  shape.insert(shape.begin(), n);
  Dataset data;
  data.name = "random/train";
  data.images = torch::randn(shape);
  torch::jit::Module module = network.module;
  const torch::Tensor logits = module.forward({data.images}).toTensor();
  data.labels = torch::multinomial(logits.softmax(1), 1).squeeze(1);
  data.classes = static_cast<int>(logits.size(1));
  return data;
}

}  // namespace bitplan::testing
