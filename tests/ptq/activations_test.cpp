#include "bitplan/ptq/activations.h"

#include <torch/csrc/jit/serialization/import.h>

#include <sstream>

#include "bitplan/core/error.h"
#include "bitplan/models/tap.h"
#include "bitplan/ptq/compensate.h"
#include "bitplan/ptq/correction.h"
#include "models/layer_reads.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::AddLayer;
using testing::ConvBatchNorm;

AppliedPlan WithActivations(const Network& network, const std::vector<int>& activation_bits,
                            const torch::Tensor& images) {
  AppliedPlan applied = ApplyBits(network, std::vector<int>(network.layers.size(), 32), {}, {}, {});
  QuantizeActivations(network, applied, activation_bits, "mse", images, SilentSink());
  return applied;
}

// What every layer of a network or a clone of it reads, call by call.
std::vector<torch::Tensor> InputsOf(const Network& network, const torch::jit::Module& module,
                                    const torch::Tensor& images) {
  std::vector<torch::Tensor> inputs;
  TapHandlers handlers;
  handlers.on_layer_input = [&](std::size_t, const torch::Tensor& input) { inputs.push_back(input.clone()); };
  const Tap tap(network, module, std::move(handlers));
  (void)RunForward(module, images);
  return inputs;
}

// x is read by two convolutions of one type, and added behind them.
Network Residual() {
  torch::manual_seed(11);
  torch::jit::Module module("residual");
  for (const char* name : {"stem", "left", "right"}) {
    AddLayer(module, name, torch::randn({4, 4, 3, 3}) * 0.2);
  }
  AddLayer(module, "head", torch::randn({3, 4}));
  module.define(R"(
def forward(self, x):
  x = torch.relu(torch.conv2d(x, self.stem.weight, None, 1, 1))
  y = torch.conv2d(x, self.left.weight, None, 1, 1) + torch.conv2d(x, self.right.weight, None, 1, 1) + x
  return torch.linear(torch.mean(torch.relu(y), [2, 3]), self.head.weight)
)");
  module.eval();
  return DescribeNetwork(module, "residual", {4, 8, 8});
}

// What every sum of a module adds, call by call.
std::vector<torch::Tensor> TermsOf(const Network& network, const torch::jit::Module& module,
                                   const torch::Tensor& images) {
  std::vector<torch::Tensor> terms;
  TapHandlers handlers;
  handlers.on_sum = [&](const torch::Tensor& left, const torch::Tensor& right) {
    terms.insert(terms.end(), {left.clone(), right.clone()});
  };
  const Tap tap(network, module, std::move(handlers));
  (void)RunForward(module, images);
  return terms;
}

TEST_CASE("terms of sums are rounded to 8 bits when asked for, and one that has levels already keeps them") {
  const Network network = Residual();
  const torch::Tensor images = torch::randn({30, 4, 8, 8});
  const auto terms_with = [&](bool round_sums) {
    AppliedPlan applied = ApplyBits(network, std::vector<int>(4, 32), {}, {}, {});
    QuantizeActivations(network, applied, {8, 4, 4, 8}, "mse", images, SilentSink(), round_sums);
    return TermsOf(network, applied.module, images);
  };
  const auto levels = [](const torch::Tensor& values) { return std::get<0>(at::_unique(values)).numel(); };
  const auto before = terms_with(false), after = terms_with(true);
  REQUIRE(before.size() == 4);  // left and right, their sum and x
  REQUIRE(after.size() == 4);
  for (const std::size_t term : {0, 1, 2}) {
    INFO(term);
    CHECK(levels(before[term]) > 256);
    CHECK(levels(after[term]) <= 256);
    CHECK(levels(after[term]) > 100);
    CHECK((after[term] - before[term]).norm().item<double>() < 0.03 * before[term].norm().item<double>());
  }
  CHECK(levels(before[3]) <= 16);
  CHECK(after[3].equal(before[3]));
}

TEST_CASE("every layer reads codes of its width: few values, zero among them, at equal steps") {
  const Network network = ConvBatchNorm();
  const torch::Tensor images = torch::randn({40, 1, 8, 8});
  const AppliedPlan applied = WithActivations(network, {8, 3, 4}, images);
  const auto inputs = InputsOf(network, applied.module, images);
  REQUIRE(inputs.size() == 3);
  for (std::size_t l = 0; l < 3; ++l) {
    INFO(l);
    const AffineQuantizer& quantizer = applied.activations[l];
    CHECK(quantizer.bits == std::vector<int>({8, 3, 4})[l]);
    const torch::Tensor codes = inputs[l] / quantizer.scale + static_cast<double>(quantizer.zero_point);
    CHECK(codes.sub(codes.round()).abs().max().item<double>() < 1e-3);
    CHECK(codes.min().item<double>() > -0.5);
    CHECK(codes.max().item<double>() < static_cast<double>(quantizer.highest()) + 0.5);
    const auto count = std::get<0>(at::_unique(codes.round())).numel();
    CHECK(count > (quantizer.highest() + 1) / 2);
  }
  CHECK(applied.activations[0].zero_point > 0);
  CHECK(applied.activations[1].zero_point == 0);  // behind a relu
}

TEST_CASE("activations of 16 bits change next to nothing, and of 32 nothing at all") {
  const Network network = ConvBatchNorm();
  const torch::Tensor images = torch::randn({40, 1, 8, 8});
  const torch::Tensor exact = RunForward(network.module, images);
  const auto distance = [&](const std::vector<int>& bits) {
    const torch::Tensor answers = RunForward(WithActivations(network, bits, images).module, images);
    return ((answers - exact).norm() / exact.norm()).item<double>();
  };
  CHECK(distance({32, 32, 32}) == 0.0);
  const double sixteen = distance({16, 16, 16}), eight = distance({8, 8, 8}), four = distance({4, 4, 4});
  CHECK(sixteen < 1e-3);
  CHECK(sixteen < eight);
  CHECK(eight < four);
}

TEST_CASE("the network that activations are taken from keeps its own code") {
  const Network network = ConvBatchNorm();
  const std::string hash = ModelHash(network.module);
  const torch::Tensor images = torch::randn({20, 1, 8, 8});
  const torch::Tensor exact = RunForward(network.module, images);
  (void)WithActivations(network, {4, 4, 4}, images);
  CHECK(ModelHash(network.module) == hash);
  CHECK(RunForward(network.module, images).equal(exact));
}

TEST_CASE("one tensor has one quantizer: layers that share it, and the sum that it goes into") {
  const Network network = Residual();
  CHECK(SharedInputs(network) == std::vector<std::size_t>({0, 1, 1, 3}));
  const torch::Tensor images = torch::randn({30, 4, 8, 8});
  const AppliedPlan applied = WithActivations(network, {32, 2, 2, 32}, images);
  CHECK(applied.activations[1].scale == applied.activations[2].scale);
  const auto inputs = InputsOf(network, applied.module, images);
  REQUIRE(inputs.size() == 4);
  CHECK(inputs[1].equal(inputs[2]));
  CHECK(std::get<0>(at::_unique(inputs[1])).numel() <= 4);
  const auto weight = [&](const char* name) { return GetTensor(network.module, std::string(name) + ".weight"); };
  const torch::Tensor x = inputs[1];
  const torch::Tensor y = torch::conv2d(x, weight("left"), {}, 1, 1) + torch::conv2d(x, weight("right"), {}, 1, 1) + x;
  const torch::Tensor answers = torch::linear(torch::relu(y).mean({2, 3}), weight("head"));
  CHECK(RunForward(applied.module, images).allclose(answers, 1e-5, 1e-6));
  try {
    (void)WithActivations(network, {8, 4, 8, 8}, images);
    FAIL("two widths of one tensor were taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kData);
    CHECK(std::string(error.what()).find("layers left and right read the same tensor") != std::string::npos);
  }
  // A layer left in float has no say, and reads what is rounded for the other.
  CHECK(WithActivations(network, {32, 4, 32, 32}, images).activations[2].bits == 4);
}

TEST_CASE("a module with rounded activations is saved, loaded and differentiated like any other") {
  const Network network = Residual();
  const torch::Tensor images = torch::randn({10, 4, 8, 8});
  AppliedPlan applied = WithActivations(network, {8, 4, 4, 8}, images);
  std::stringstream file;
  applied.module.save(file);
  torch::jit::Module loaded = torch::jit::load(file);
  CHECK(RunForward(loaded, images).equal(RunForward(applied.module, images)));
  CHECK(RunForward(CloneModule(loaded), images).equal(RunForward(applied.module, images)));
  torch::Tensor some = images.clone().set_requires_grad(true);
  RunForward(loaded, some).square().sum().backward();
  CHECK(some.grad().abs().sum().item<double>() > 0.0);
}

TEST_CASE("rounding and corrections see the activations that the plan rounds") {
  const Network network = ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 200);
  QuantizerOptions options;
  options.batch_norm = "transfer";
  options.output_correction = "off";
  const std::vector<int> bits = {8, 4, 4};
  const auto answers = [&](bool before) {
    AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
    if (before) QuantizeActivations(network, applied, {8, 2, 2}, "mse", data.images, SilentSink());
    CompensateRounding(network, applied, bits, options, data.images, SilentSink());
    (void)CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink());
    if (!before) QuantizeActivations(network, applied, {8, 2, 2}, "mse", data.images, SilentSink());
    return RunForward(applied.module, data.images);
  };
  const torch::Tensor exact = RunForward(network.module, data.images);
  const auto distance = [&](const torch::Tensor& of) { return (of - exact).square().mean().item<double>(); };
  CHECK(distance(answers(true)) < 0.97 * distance(answers(false)));
}

TEST_CASE("a weight that changes on its way to the operation has no place for activations, and the layer is named") {
  torch::manual_seed(2);
  torch::jit::Module module("changed");
  module.register_parameter("weight", torch::randn({4, 6}), false);
  module.register_parameter("second", torch::randn({3, 4}), false);
  module.define(R"(
def forward(self, x):
  hidden = [self.weight, self.second]
  return torch.linear(torch.relu(torch.linear(x, hidden[0])), hidden[1])
)");
  module.eval();
  const Network network = DescribeNetwork(module, "changed", {6});
  try {
    (void)WithActivations(network, std::vector<int>(network.layers.size(), 8), torch::randn({5, 6}));
    FAIL("no place was found, and nothing said");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find("the input of layer ") == 0);
  }
}

TEST_CASE("a weight that two modules share is one tensor still when what they read is rounded") {
  torch::manual_seed(4);
  torch::jit::Module module("shared");
  const torch::Tensor weight = torch::randn({6, 6}) * 0.4;
  for (const char* name : {"a", "b"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", weight, false);
    module.register_module(name, child);
  }
  module.define(
      "def forward(self, x):\n  return torch.linear(torch.relu(torch.linear(x, self.a.weight)), self.b.weight)\n");
  module.eval();
  const Network network = DescribeNetwork(module, "shared", {6});
  REQUIRE(network.layers.size() == 1);
  QuantizerOptions options;
  options.range = "mse";
  AppliedPlan applied = ApplyBits(network, {3}, {}, options, {});
  QuantizeActivations(network, applied, {8}, "mse", torch::randn({32, 6}), SilentSink());
  QuantizedTensor changed = applied.weights[0];
  changed.scales = changed.scales * 1.5;
  applied.Put(network, 0, changed);
  CHECK(torch::equal(GetTensor(applied.module, "a.weight"), changed.Values()));
  CHECK(torch::equal(GetTensor(applied.module, "b.weight"), changed.Values()));
}

}  // namespace
}  // namespace bitplan
