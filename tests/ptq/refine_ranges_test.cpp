#include "bitplan/ptq/refine_ranges.h"

#include <torch/csrc/jit/serialization/import.h>

#include <cmath>
#include <sstream>

#include "bitplan/likelihoods/likelihood.h"
#include "bitplan/ptq/activations.h"
#include "ptq/moving_ranges.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

// Weights of four bits, activations of `bits`.
AppliedPlan RoundedInputs(const Network& network, int bits, const std::string& range = "max") {
  AppliedPlan applied = ApplyBits(network, std::vector<int>(network.layers.size(), 4), {}, {}, {});
  QuantizeActivations(network, applied, std::vector<int>(network.layers.size(), bits), range,
                      RandomImages(network, 200, 3).images, SilentSink());
  return applied;
}

double DivergenceOf(const Network& network, const torch::jit::Module& module, const Dataset& images) {
  const torch::NoGradGuard no_grad;
  return images.Task()
      .Divergences(RunForward(network.module, images.images), RunForward(module, images.images), images.labels)
      .mean()
      .item<double>();
}

RefinedRanges Refine(const Network& network, AppliedPlan& applied, int steps, const Dataset& images, int batch = 32) {
  return RefineRanges(network, applied, steps, images, Normalizer({}), batch, 5, SilentSink());
}

TEST_CASE("refined ranges bring answers closer on images that decided nothing, and change nothing else") {
  const Network network = ConvBatchNorm();
  AppliedPlan applied = RoundedInputs(network, 2);
  const AppliedPlan before = applied;
  const torch::jit::Module module_before = CloneModule(applied.module);
  const RefinedRanges refined = Refine(network, applied, 2, RandomImages(network, 800, 21));
  CHECK(refined.held_out == 100);
  CHECK(refined.ranges == 3);
  REQUIRE(refined.kept);
  CHECK(refined.after < refined.before);
  const Dataset others = RandomImages(network, 400, 22);
  CHECK(DivergenceOf(network, applied.module, others) < 0.9 * DivergenceOf(network, module_before, others));
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    CHECK(applied.activations[l].scale != before.activations[l].scale);
    CHECK(applied.activations[l].zero_point == before.activations[l].zero_point);
    CHECK(applied.activations[l].bits == 2);
    CHECK(torch::equal(applied.weights[l].Values(), before.weights[l].Values()));
    CHECK(torch::equal(GetTensor(applied.module, network.layers[l].parameter), applied.weights[l].Values()));
  }
  // The module holds these scales as numbers, and nothing else that it did not hold before.
  AppliedPlan again = RoundedInputs(network, 2);
  CHECK(again.module.named_attributes().size() == applied.module.named_attributes().size());
  const torch::NoGradGuard no_grad;
  const torch::Tensor first = others.images.slice(0, 0, 1);
  const torch::Tensor rounded = applied.activations[0].Apply(first);
  CHECK(torch::equal(RunForward(applied.module, first), RunForward(applied.module, rounded)));
  (void)Refine(network, again, 2, RandomImages(network, 800, 21));
  CHECK(ModelHash(again.module) == ModelHash(applied.module));
}

TEST_CASE("no step of the range that was tried last would lower the divergence of the images that teach") {
  const Network network = ConvBatchNorm();
  AppliedPlan applied = RoundedInputs(network, 3);
  const Dataset images = RandomImages(network, 480, 23), taught = images.Head(420);
  const double before = DivergenceOf(network, applied.module, taught);
  REQUIRE(Refine(network, applied, 2, images).kept);
  const double now = DivergenceOf(network, applied.module, taught);
  CHECK(now < before);
  for (const float factor : {1.12F, 1.0F / 1.12F}) {
    AppliedPlan changed = applied;
    MovingRanges moving(network, changed);
    REQUIRE(moving.ranges().size() == 3);
    const torch::NoGradGuard no_grad;
    moving.ranges().back().scale.mul_(factor);
    INFO(factor);
    CHECK(DivergenceOf(network, changed.module, taught) >= now);
  }
}

TEST_CASE("ranges that are no better on images that decide are left as they were, to the bit") {
  const Network network = ConvBatchNorm();
  AppliedPlan applied = RoundedInputs(network, 8, "mse");
  const std::string hash = ModelHash(applied.module);
  const float scale = applied.activations[1].scale;
  const RefinedRanges refined = Refine(network, applied, 1, RandomImages(network, 16, 24), 2);
  INFO(refined.before << " " << refined.after);
  REQUIRE_FALSE(refined.kept);
  CHECK(ModelHash(applied.module) == hash);
  CHECK(applied.activations[1].scale == scale);
  AppliedPlan in_float = ApplyBits(network, {4, 4, 4}, {}, {}, {});
  CHECK(Refine(network, in_float, 1, RandomImages(network, 200, 24)).held_out == 0);
}

TEST_CASE("layers that read one tensor keep one range when it moves, and a saved module knows it") {
  torch::manual_seed(11);
  torch::jit::Module module("shared");
  for (const char* name : {"a", "b", "c"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn({6, 6}), false);
    module.register_module(name, child);
  }
  module.define(R"(
def forward(self, x):
  x = torch.relu(torch.linear(torch.flatten(x, 1), self.a.weight))
  return torch.linear(x, self.b.weight) + torch.linear(x, self.c.weight) + x
)");
  module.eval();
  const Network network = DescribeNetwork(module, "shared", {1, 2, 3});
  AppliedPlan applied = RoundedInputs(network, 3);
  const RefinedRanges refined = Refine(network, applied, 1, RandomImages(network, 400, 25));
  CHECK(refined.ranges == 2);
  REQUIRE(refined.kept);
  CHECK(applied.activations[1].scale == applied.activations[2].scale);
  std::stringstream file;
  applied.module.save(file);
  const torch::jit::Module loaded = torch::jit::load(file);
  const torch::NoGradGuard no_grad;
  const torch::Tensor images = RandomImages(network, 20, 26).images;
  CHECK(torch::equal(RunForward(loaded, images), RunForward(applied.module, images)));
}

}  // namespace
}  // namespace bitplan
