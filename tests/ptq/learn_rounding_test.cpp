#include "bitplan/ptq/learn_rounding.h"

#include "bitplan/likelihoods/likelihood.h"
#include "bitplan/ptq/compensate.h"
#include "bitplan/ptq/correction.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

QuantizerOptions Learning(int steps, double rate) {
  QuantizerOptions options;
  options.batch_norm = "transfer";
  options.output_correction = "fit";
  options.learned_steps = steps;
  options.learned_rate = rate;
  return options;
}

// Rounded to two bits and corrected.
AppliedPlan Rounded(const Network& network, const QuantizerOptions& options) {
  const torch::Tensor images = RandomImages(network, 200, 3).images;
  const std::vector<int> bits(network.layers.size(), 2);
  AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
  CompensateRounding(network, applied, bits, options, images, SilentSink());
  (void)CorrectNetwork(network, applied, options, images, RandomImages(network, 10), Normalizer({}), SilentSink());
  return applied;
}

// Mean divergence of the predictions from those of the float network, nats.
double Divergence(const Network& network, const torch::jit::Module& module, const Dataset& images) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor inputs = Normalizer({}).Apply(images.images);
  return images.Task()
      .Divergences(RunForward(network.module, inputs), RunForward(module, inputs), images.labels)
      .mean()
      .item<double>();
}

LearnedRounding Learn(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                      const Dataset& images, int batch = 32) {
  return LearnRounding(network, applied, options, images, Normalizer({}), batch, 5, SilentSink());
}

TEST_CASE("learned rounding brings answers closer on images that taught nothing, in the same widths, grids and signs") {
  const Network network = ConvBatchNorm();
  const QuantizerOptions options = Learning(150, 0.02);
  AppliedPlan applied = Rounded(network, options);
  const AppliedPlan before = applied;
  const torch::jit::Module module_before = CloneModule(applied.module);
  const LearnedRounding learned = Learn(network, applied, options, RandomImages(network, 800, 21));
  CHECK(learned.held_out == 100);
  CHECK(learned.kept);
  CHECK(learned.after < learned.before);
  CHECK(learned.moved > 0);
  CHECK(learned.moved < learned.codes);
  const Dataset others = RandomImages(network, 400, 22);
  CHECK(Divergence(network, applied.module, others) < 0.95 * Divergence(network, module_before, others));
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const QuantizedTensor &now = applied.weights[l], &then = before.weights[l];
    CHECK(now.bits == then.bits);
    CHECK(now.offset == then.offset);
    CHECK(torch::equal(now.scales.sign(), then.scales.sign()));
    CHECK(now.codes.min().item<int>() >= -2);
    CHECK(now.codes.max().item<int>() <= 1);
    CHECK(torch::equal(GetTensor(applied.module, network.layers[l].parameter), now.Values()));
    CHECK_FALSE(GetTensor(applied.module, network.layers[l].parameter).requires_grad());
  }
  for (const BatchNorm& norm : network.batch_norms) {  // statistics are the correction's
    CHECK(torch::equal(GetTensor(applied.module, norm.running_mean), GetTensor(module_before, norm.running_mean)));
  }
  for (const auto& parameter : network.module.named_parameters()) CHECK_FALSE(parameter.value.requires_grad());
  AppliedPlan again = Rounded(network, options);
  (void)Learn(network, again, options, RandomImages(network, 800, 21));
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    CHECK(torch::equal(again.weights[l].Values(), applied.weights[l].Values()));
  }
}

TEST_CASE("the first step of a scale goes down the slope of the divergence") {
  const Network network = ConvBatchNorm();
  const QuantizerOptions options = Learning(1, 1e-3);
  AppliedPlan applied = Rounded(network, options);
  const AppliedPlan before = applied;
  const torch::jit::Module module = CloneModule(applied.module);
  const Dataset images = RandomImages(network, 4000, 23);
  REQUIRE(Learn(network, applied, options, images, 4000).kept);
  const Dataset taught = images.Head(3500);  // all of them in one minibatch
  int seen = 0;
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    for (std::int64_t channel = 0; channel < before.weights[l].scales.numel(); ++channel) {
      const auto at = [&](float factor) {
        QuantizedTensor weight = before.weights[l];
        weight.scales = weight.scales.clone();
        weight.scales[channel] *= factor;
        torch::jit::Module changed = CloneModule(module);
        const torch::NoGradGuard no_grad;
        GetTensor(changed, network.layers[l].parameter).copy_(weight.Values());
        return Divergence(network, changed, taught);
      };
      const double slope = (at(1.01F) - at(0.99F)) / 0.02;
      if (std::abs(slope) < 2e-4) continue;
      ++seen;
      const double moved =
          (applied.weights[l].scales[channel] / before.weights[l].scales[channel]).item<double>() - 1.0;
      INFO(network.layers[l].name << " channel " << channel << " slope " << slope);
      CHECK(moved * slope < 0.0);
      CHECK(std::abs(moved) == Approx(5e-5).epsilon(0.02));
    }
  }
  CHECK(seen > 5);
}

TEST_CASE("rounding that learning made worse is left as it was, to the bit") {
  const Network network = ConvBatchNorm();
  const QuantizerOptions options = Learning(5, 3.0);
  AppliedPlan applied = Rounded(network, options);
  const std::string hash = ModelHash(applied.module);
  const LearnedRounding learned = Learn(network, applied, options, RandomImages(network, 200, 24));
  CHECK_FALSE(learned.kept);
  CHECK(learned.after > learned.before);
  CHECK(ModelHash(applied.module) == hash);
  CHECK(Learn(network, applied, Learning(0, 0.01), RandomImages(network, 200, 24)).held_out == 0);
  CHECK(ModelHash(applied.module) == hash);
}

}  // namespace
}  // namespace bitplan
