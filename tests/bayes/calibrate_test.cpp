// Scales of standard deviations after fine-tuning.
#include "bitplan/bayes/calibrate.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "bitplan/bayes/variational_network.h"
#include "support/catch_torch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

// Images that occur once, then images that occur three times each.
Dataset TwoKinds(const Network& network) {
  Dataset data = testing::RandomImages(network, 90);
  const torch::Tensor once = torch::arange(60), thrice = torch::arange(60, 90).repeat_interleave(3);
  return data.Select(torch::cat({once, thrice}));
}

double Largest(const std::vector<UncertaintyDrift>& drifts) {
  double most = 0.0;
  for (const auto& drift : drifts) most = std::max({most, std::abs(drift.aleatoric), std::abs(drift.epistemic)});
  return most;
}

// 8 bits for means and standard deviations, or as they are ("").
StoredNetwork SigmaRounded(const StoredNetwork& stored, const std::string& sigma_scale) {
  if (sigma_scale.empty()) return stored;
  VariationalNetwork rounded(stored);
  rounded.Quantize(std::vector<BayesWidths>(stored.layers.size(), {8, 8, kFloatBits}), sigma_scale, {}, 1);
  return rounded.Store();
}

TEST_CASE("standard deviations that are too large or too small are brought back, whatever stores them") {
  const Network network = testing::ConvBatchNorm();
  const StoredNetwork reference = VariationalNetwork(network, 0.3).Store();
  const UncertaintyTarget target(reference, TwoKinds(network), Normalizer{DataOptions{}}, 1, SilentSink());
  const auto itself = target.Drift(reference, {}, SilentSink());
  CHECK((itself.size() == 1 && itself[0].size() == 2));
  CHECK(Largest(itself[0]) == 0.0);
  for (const char* scale : {"", "log", "linear"}) {
    for (const double factor : {0.85, 1.15}) {
      INFO(scale << " " << factor);
      StoredNetwork moved = reference;
      for (StoredLayer& layer : moved.layers) layer.sigma = layer.sigma * factor;
      moved = SigmaRounded(moved, scale);
      CHECK(Largest(target.Drift(moved, {}, SilentSink())[0]) > 0.15);
      const UncertaintyScales scales = CalibrateUncertainty(moved, target, SilentSink());
      CHECK(scales.sigmas == Approx(1.0 / factor).epsilon(0.05));
      CHECK(scales.logits == Approx(1.0).epsilon(0.02));
      CHECK(Largest(target.Drift(moved, {}, SilentSink())[0]) < 0.05);
    }
  }
  StoredNetwork lost = reference;
  for (StoredLayer& layer : lost.layers) layer.sigma = layer.sigma * 0.01;
  CHECK(CalibrateUncertainty(lost, target, SilentSink()).sigmas == 1.25);
}

// relu(x W^T) V^T + b, 4 classes, and what `forward` makes of these `logits`.
Network TwoLayers(const std::string& forward) {
  torch::manual_seed(5);
  torch::jit::Module module("two_layers");
  for (const auto& [name, shape] : {std::pair("hidden", std::vector<std::int64_t>{16, 12}), {"out", {4, 16}}}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn(shape) * 0.4, false);
    child.register_parameter("bias", torch::randn({shape[0]}), false);
    module.register_module(name, child);
  }
  module.define(
      "def forward(self, x):\n"
      "  x = torch.relu(torch.linear(torch.flatten(x, 1), self.hidden.weight, self.hidden.bias))\n"
      "  logits = torch.linear(x, self.out.weight, self.out.bias)\n"
      "  return " +
      forward + "\n");
  module.eval();
  return DescribeNetwork(module, "two-layers", {1, 1, 12});
}

TEST_CASE("logits that are too large or too small are brought back, whatever stores the output layer") {
  const Network network = TwoLayers("logits");
  const StoredNetwork reference = VariationalNetwork(network, 0.3).Store();
  const UncertaintyTarget target(reference, TwoKinds(network), Normalizer{DataOptions{}}, 1, SilentSink());
  const torch::Tensor bias = GetTensor(network.module, "out.bias").clone();
  for (const char* scale : {"", "log", "linear"}) {
    for (const double factor : {0.87, 1.15}) {
      INFO(scale << " " << factor);
      StoredNetwork moved = reference;
      moved.network.module = CloneModule(network.module);
      StoredLayer& output = moved.layers.back();
      output.mean = output.mean * factor;
      output.sigma = output.sigma * factor;
      SetTensor(moved.network.module, "out.bias", bias * factor);
      moved = SigmaRounded(moved, scale);
      CHECK(Largest(target.Drift(moved, {}, SilentSink())[0]) > 0.05);
      const UncertaintyScales scales = CalibrateUncertainty(moved, target, SilentSink());
      CHECK(scales.sigmas == Approx(1.0).epsilon(0.02));
      CHECK(scales.logits == Approx(1.0 / factor).epsilon(0.02));
      CHECK(Largest(target.Drift(moved, {}, SilentSink())[0]) < 0.01);
      CHECK(torch::allclose(GetTensor(moved.network.module, "out.bias"), bias, 0.02, 1e-6));
    }
  }
  CHECK(torch::equal(GetTensor(network.module, "out.bias"), bias));  // nobody else's module was touched
}

TEST_CASE("logits that no layer puts out alone are left as they are") {
  for (const char* forward : {"torch.tanh(logits)", "logits + self.out.bias"}) {
    INFO(forward);
    const Network network = TwoLayers(forward);
    const StoredNetwork reference = VariationalNetwork(network, 0.3).Store();
    const UncertaintyTarget target(reference, TwoKinds(network), Normalizer{DataOptions{}}, 1, SilentSink());
    StoredNetwork moved = reference;
    for (StoredLayer& layer : moved.layers) layer.sigma = layer.sigma * 1.15;
    const UncertaintyScales scales = CalibrateUncertainty(moved, target, SilentSink());
    CHECK(scales.sigmas == Approx(1.0 / 1.15).epsilon(0.05));
    CHECK(scales.logits == 1.0);
  }
}

}  // namespace
}  // namespace bitplan
