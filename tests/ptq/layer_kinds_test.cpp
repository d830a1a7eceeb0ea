// Rounding layers of every kind: scales, compensation, and what a trained network loses.
#include <torch/csrc/autograd/autograd.h>

#include "bitplan/ptq/apply.h"
#include "bitplan/ptq/compensate.h"
#include "bitplan/ptq/correction.h"
#include "support/layer_kinds.h"

namespace bitplan {
namespace {

using testing::ConvolutionKinds;
using testing::KindNetwork;
using testing::LayerKind;

QuantizerOptions Plain() {
  QuantizerOptions options;
  options.range = "mse";
  options.rounding = "compensated";
  options.batch_norm = "off";
  options.output_correction = "off";
  return options;
}

// Neighbours in smooth images, and channels of them, are correlated, so that errors can cancel.
torch::Tensor Smooth(const std::vector<std::int64_t>& input, std::int64_t n, std::uint64_t seed) {
  torch::manual_seed(seed);
  std::vector<std::int64_t> shape = input;
  shape.insert(shape.begin(), n);
  torch::Tensor images = torch::randn(shape);
  for (std::int64_t d = 1; d < images.dim(); ++d) images = images + images.roll(1, d) + images.roll(2, d);
  return images;
}

// What the first layer alone gives.
torch::Tensor FirstOutputs(const torch::jit::Module& module, const LayerKind& kind, const torch::Tensor& images) {
  torch::jit::Module alone("Alone");
  alone.register_parameter("w", GetTensor(module, "w"), false);
  alone.define("def forward(self, x):\n    return " + kind.call + "\n");
  return alone.forward({images}).toTensor();
}

TEST_CASE("every output channel of a layer of any kind has a scale of its own") {
  for (const LayerKind& kind : ConvolutionKinds()) {
    INFO(kind.name);
    const Network network = KindNetwork(kind);
    const torch::NoGradGuard no_grad;
    torch::Tensor weight = GetTensor(network.module, "w");
    // Each channel ten times as large as the one before: one scale too few, or along another dimension, loses some.
    const torch::Tensor channels = weight.movedim(kind.output_dim, 0);
    for (std::int64_t c = 0; c < kind.channels; ++c) channels[c].mul_(std::pow(10.0, static_cast<double>(c)));
    const AppliedPlan applied = ApplyBits(network, {6, 8}, {}, Plain(), {});
    CHECK(applied.weights[0].scales.numel() == kind.channels);
    CHECK(applied.weights[0].channel_dim == kind.output_dim);
    const torch::Tensor errors =
        (GetTensor(applied.module, "w") - weight).movedim(kind.output_dim, 0).flatten(1).abs().amax(1);
    const torch::Tensor largest = channels.flatten(1).abs().amax(1);
    CHECK((errors / largest).max().item<double>() < 0.05);
  }
}

TEST_CASE("compensated rounding brings outputs of every kind closer to those of the float network") {
  for (const LayerKind& kind : ConvolutionKinds()) {
    const Network network = KindNetwork(kind);
    const torch::Tensor images = Smooth(kind.input, 256, 11), others = Smooth(kind.input, 256, 12);
    const std::vector<int> bits = {2, 8};
    const AppliedPlan nearest = ApplyBits(network, bits, {}, Plain(), {});
    AppliedPlan compensated = ApplyBits(network, bits, {}, Plain(), {});
    CompensateRounding(network, compensated, bits, Plain(), images, SilentSink());
    const torch::Tensor target = FirstOutputs(network.module, kind, others);
    const auto error = [&](const torch::jit::Module& module) {
      return (FirstOutputs(module, kind, others) - target).square().mean().item<double>();
    };
    INFO(kind.name << ": " << error(compensated.module) << " against " << error(nearest.module));
    CHECK(error(compensated.module) < 0.9 * error(nearest.module));
  }
}

TEST_CASE("rows of an embedding keep their nearest levels, which nothing that is looked up could better") {
  const Network network = testing::WordNetwork();
  const std::vector<int> bits = {3, 8};
  const AppliedPlan nearest = ApplyBits(network, bits, {}, Plain(), {});
  AppliedPlan compensated = ApplyBits(network, bits, {}, Plain(), {});
  CHECK(nearest.weights[0].scales.numel() == 12);
  QuantizerOptions fitted = Plain();
  fitted.output_correction = "fit";
  const torch::Tensor images = testing::Words(64).to(network.input_type);
  CompensateRounding(network, compensated, bits, fitted, images, SilentSink());
  (void)CorrectNetwork(network, compensated, fitted, images, {}, Normalizer({}), SilentSink());
  CHECK(torch::equal(GetTensor(nearest.module, "table"), GetTensor(compensated.module, "table")));
}

// Sums of words, a signal made of them, down and up again: an embedding, conv1d, depthwise and transposed convolutions.
Network SignalNetwork() {
  torch::manual_seed(8);
  torch::jit::Module module("Signals");
  const auto add = [&](const char* name, std::vector<std::int64_t> shape, double scale) {
    module.register_parameter(name, torch::randn(shape) * scale, false);
  };
  add("table", {8, 6}, 1.0);
  add("a", {12, 6, 3}, 0.25);
  add("depth", {12, 1, 3}, 0.6);
  add("up", {12, 8, 4}, 0.2);
  add("fc", {4, 8}, 0.4);
  module.define(R"(
def forward(self, x):
    h = torch.embedding(self.table, x.long()).transpose(1, 2)
    h = torch.relu(torch.conv1d(h, self.a, None, 2, 1))
    h = torch.relu(torch.conv1d(h, self.depth, None, 1, 1, 1, 12))
    h = torch.relu(torch.conv_transpose1d(h, self.up, None, 2, 1))
    return torch.linear(h.mean([2]), self.fc)
)");
  module.eval();
  return DescribeNetwork(module, "signals", {12});
}

TEST_CASE("a trained network of these kinds loses little at four bits") {
  const Network network = SignalNetwork();
  REQUIRE(network.layers.size() == 5);
  REQUIRE(network.left_in_float.empty());
  torch::manual_seed(4);
  const torch::Tensor words = torch::randint(8, {600, 12}, torch::kFloat);
  const torch::Tensor labels = words.lt(4).sum(1).sub(4).floor_divide(2).clamp(0, 2);  // how many low words there are
  torch::jit::Module module = network.module;
  std::vector<torch::Tensor> weights, moments;
  for (const Layer& layer : network.layers) {
    weights.push_back(GetTensor(module, layer.parameter).set_requires_grad(true));
    moments.push_back(torch::zeros_like(weights.back()));
  }
  for (int step = 0; step < 400; ++step) {
    const torch::Tensor loss = torch::nll_loss(module.forward({words}).toTensor().log_softmax(1), labels);
    const auto gradients = torch::autograd::grad({loss}, weights);
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      moments[i].mul_(0.9).add_(gradients[i]);
      weights[i].sub_(moments[i], 0.03);
    }
  }
  for (torch::Tensor& weight : weights) weight.set_requires_grad(false);
  const auto accuracy = [&](torch::jit::Module measured) {
    return measured.forward({words}).toTensor().argmax(1).eq(labels).to(torch::kFloat).mean().item<double>();
  };
  const double before = accuracy(network.module);
  CHECK(before > 0.85);
  const auto at = [&](int width) {
    const std::vector<int> bits(network.layers.size(), width);
    AppliedPlan applied = ApplyBits(network, bits, {}, Plain(), {});
    CompensateRounding(network, applied, bits, Plain(), words.to(network.input_type), SilentSink());
    return accuracy(applied.module);
  };
  INFO(before << " in float, " << at(4) << " at four bits, " << at(1) << " at one");
  CHECK(at(4) > before - 0.03);
  CHECK(at(1) < before - 0.05);
}

}  // namespace
}  // namespace bitplan
