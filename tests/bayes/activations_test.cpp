#include "bitplan/bayes/activations.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <sstream>

#include "bitplan/core/error.h"
#include "bitplan/models/architectures.h"
#include "support/catch_torch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

Network Lenet() { return DescribeNetwork(BuildArchitecture("lenet5", 3), "lenet5", {1, 28, 28}); }

// Three numbers as they are, then their sum.
Network TwoLayers() {
  torch::jit::Module module("two");
  torch::jit::Module a("a"), b("b");
  a.register_parameter("weight", torch::eye(3), false);
  b.register_parameter("weight", torch::tensor({{1.0F, 1.0F, 1.0F}}), false);
  module.register_module("a", a);
  module.register_module("b", b);
  module.define("def forward(self, x):\n  return torch.linear(torch.linear(x, self.a.weight), self.b.weight)\n");
  module.eval();
  return DescribeNetwork(module, "two", {3});
}

// The same with the inputs of its second layer at two bits, in this step.
Network TwoBits(bool is_signed, const torch::Tensor& step) {
  std::vector<ActivationQuantizer> quantizers;
  Network rounded = WithQuantizedActivations(TwoLayers(), 2, {false, is_signed}, quantizers);
  SetTensor(rounded.module, quantizers.at(0).step, step);
  return rounded;
}

torch::Tensor Run(const Network& network, const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  torch::jit::Module module = network.module;
  return module.forward({images}).toTensor();
}

TEST_CASE("an exchanged activation is computed, and the first network stays what it was") {
  const Network network = testing::ConvBatchNorm();
  torch::manual_seed(1);
  const torch::Tensor images = torch::randn({5, 1, 8, 8}) * 3.0;
  const torch::Tensor before = Run(network, images);
  const Network hard = WithActivation(network, FindActivationFunction("hard-tanh"));
  const auto at = [&](const char* path) { return GetTensor(network.module, path); };
  const auto norm = [&](const torch::Tensor& x, const std::string& name) {
    return torch::batch_norm(x, at((name + ".weight").c_str()), at((name + ".bias").c_str()),
                             at((name + ".running_mean").c_str()), at((name + ".running_var").c_str()), false, 0.1,
                             1e-5, true);
  };
  torch::Tensor x = torch::hardtanh(norm(torch::conv2d(images, at("conv1.weight")), "bn1"));
  x = torch::hardtanh(norm(torch::conv2d(x, at("conv2.weight")), "bn2"));
  CHECK(torch::allclose(Run(hard, images), torch::linear(x.mean({2, 3}), at("fc.weight")), 1e-4, 1e-5));
  CHECK(torch::equal(Run(network, images), before));
  CHECK_FALSE(torch::allclose(Run(hard, images), before));
}

TEST_CASE("rounded levels of an activation are odd multiples of a sixteenth") {
  torch::jit::Module fc("fc"), module("levels");
  fc.register_parameter("weight", torch::eye(6), false);
  module.register_module("fc", fc);
  module.define("def forward(self, x):\n  return torch.linear(torch.relu(x), self.fc.weight)\n");
  module.eval();
  const Network levels =
      WithActivation(DescribeNetwork(module, "levels", {6}), FindActivationFunction("signed-levels"));
  const torch::Tensor codes = Run(levels, torch::randn({50, 6})) * 16.0;
  CHECK(torch::equal(codes, 2.0 * ((codes - 1.0) / 2.0).round() + 1.0));
  CHECK((codes.max().item<float>() == 15.0F && codes.min().item<float>() == -15.0F));
}

TEST_CASE("inputs of all layers but the first are rounded to their step") {
  const Network network = Lenet();
  std::vector<ActivationQuantizer> quantizers;
  const Network rounded = WithQuantizedActivations(network, 2, {false, false, false, false, false}, quantizers);
  REQUIRE(quantizers.size() == network.layers.size() - 1);
  const torch::Tensor images = torch::randn({3, 1, 28, 28});
  const auto at = [&](const std::string& path) { return GetTensor(network.module, path); };
  torch::jit::Module module = rounded.module;
  double step = 0.3;
  for (const ActivationQuantizer& quantizer : quantizers) {
    SetTensor(module, quantizer.step, torch::tensor(static_cast<float>(step)));
    step += 0.1;
  }
  const auto quantized = [](const torch::Tensor& x, double s) { return (x / s).clamp(0, 3).round() * s; };
  torch::Tensor x =
      torch::max_pool2d(torch::relu(torch::conv2d(images, at("conv1.weight"), at("conv1.bias"), 1, 2)), 2);
  x = torch::max_pool2d(torch::relu(torch::conv2d(quantized(x, 0.3), at("conv2.weight"), at("conv2.bias"))), 2);
  x = torch::relu(torch::linear(quantized(x.flatten(1), 0.4), at("fc1.weight"), at("fc1.bias")));
  x = torch::relu(torch::linear(quantized(x, 0.5), at("fc2.weight"), at("fc2.bias")));
  x = torch::linear(quantized(x, 0.6), at("fc3.weight"), at("fc3.bias"));
  CHECK(torch::allclose(Run(rounded, images), x, 1e-4, 1e-5));
  CHECK(torch::equal(Run(network, images), Run(Lenet(), images)));

  std::stringstream file;  // the saved model rounds too
  module.save(file);
  torch::jit::Module loaded = torch::jit::load(file);
  CHECK(torch::allclose(loaded.forward({images}).toTensor(), x, 1e-4, 1e-5));
}

TEST_CASE("a weight that two submodules share stays one, and its inputs are rounded wherever it is used") {
  torch::jit::Module first("first"), a("block"), b("block"), module("tied");
  first.register_parameter("weight", torch::eye(4), false);
  const torch::Tensor shared = 2.0 * torch::eye(4);
  for (torch::jit::Module* block : {&a, &b}) block->register_parameter("weight", shared, false);
  module.register_module("first", first);
  module.register_module("a", a);
  module.register_module("b", b);
  module.define(
      "def forward(self, x):\n  y = torch.relu(torch.linear(x, self.first.weight))\n"
      "  y = torch.relu(torch.linear(y, self.a.weight))\n  return torch.linear(y, self.b.weight)\n");
  module.eval();
  const Network network = DescribeNetwork(module, "tied", {4});
  REQUIRE(network.layers.size() == 2);
  std::vector<ActivationQuantizer> quantizers;
  const Network rounded = WithQuantizedActivations(network, 2, {false, false}, quantizers);
  CHECK(GetTensor(rounded.module, "a.weight").data_ptr() == GetTensor(rounded.module, "b.weight").data_ptr());
  CHECK(GetTensor(rounded.module, "a.weight").data_ptr() != shared.data_ptr());
  CHECK(torch::equal(Run(rounded, torch::full({1, 4}, 1.3)), torch::full({1, 4}, 4.0)));  // 1.3 -> 1, 2 -> 2, 4
}

TEST_CASE("rounding passes gradients within the levels and gives the step that of learned step size") {
  const torch::Tensor step = torch::tensor(0.5F).set_requires_grad(true);
  Network rounded = TwoBits(false, step);
  const torch::Tensor x = torch::tensor({{0.6F, 0.9F, 7.0F}}).set_requires_grad(true);
  rounded.module.forward({x}).toTensor().sum().backward();
  CHECK(torch::equal(x.grad(), torch::tensor({{1.0F, 1.0F, 0.0F}})));
  // round(v) - v inside, the highest code outside: (1 - 1.2) + (2 - 1.8) + 3.
  CHECK(step.grad().item<float>() == Approx(-0.2 + 0.2 + 3.0));
}

TEST_CASE("inputs with a sign get levels at odd halves, with the gradients of those") {
  const torch::Tensor step = torch::tensor(0.5F).set_requires_grad(true);
  Network rounded = TwoBits(true, step);
  const torch::Tensor x = torch::tensor({{0.1F, -0.45F, 7.0F}}).set_requires_grad(true);
  const torch::Tensor sum = rounded.module.forward({x}).toTensor().sum();
  CHECK(sum.item<float>() == Approx(0.25 - 0.25 + 0.75));
  sum.backward();
  CHECK(torch::equal(x.grad(), torch::tensor({{1.0F, 1.0F, 0.0F}})));
  CHECK(step.grad().item<float>() == Approx((0.5 - 0.2) + (-0.5 + 0.9) + 1.5));
}

TEST_CASE("what cannot be exchanged is said") {
  CHECK_THROWS_WITH(FindActivationFunction("relu6"), ContainsSubstring("relu"));
  CHECK_THROWS_WITH(WithActivation(testing::SoftmaxRegression(4, 3, 1.0), FindActivationFunction("hard-tanh")),
                    ContainsSubstring("no relu"));
}

}  // namespace
}  // namespace bitplan
