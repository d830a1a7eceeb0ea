#include "ptq/integer_biases.h"

#include <cmath>

#include "bitplan/ptq/activations.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

AppliedPlan WithIntegers(const Network& network, int weights, int activations) {
  AppliedPlan applied = ApplyBits(network, std::vector<int>(network.layers.size(), weights), {}, {}, {});
  QuantizeActivations(network, applied, std::vector<int>(network.layers.size(), activations), "mse",
                      RandomImages(network, 100, 3).images, SilentSink());
  return applied;
}

// How far the biases of a layer with the batch norm behind it are from whole steps, in steps: [channels].
torch::Tensor OffSteps(const AppliedPlan& applied, std::size_t layer, const std::string& norm) {
  const auto at = [&](const std::string& name) {
    return GetTensor(applied.module, norm + "." + name).to(torch::kFloat64);
  };
  const torch::Tensor slope = at("weight") / (at("running_var") + 1e-5).sqrt();
  const torch::Tensor folded = at("bias") - at("running_mean") * slope;
  const torch::Tensor steps =
      applied.weights[layer].scales.to(torch::kFloat64) * slope * static_cast<double>(applied.activations[layer].scale);
  const torch::Tensor counts = folded / steps;
  return (counts - counts.round()).abs();
}

TEST_CASE("the bias of a batch norm behind a layer becomes a whole number of steps of its integers") {
  const Network network = ConvBatchNorm();
  AppliedPlan applied = WithIntegers(network, 4, 8);
  const torch::Tensor before = GetTensor(applied.module, "bn2.bias").clone();
  CHECK(OffSteps(applied, 1, "bn2").max().item<double>() > 0.1);
  RoundBiases(network, applied);
  CHECK(OffSteps(applied, 0, "bn1").max().item<double>() < 1e-3);
  CHECK(OffSteps(applied, 1, "bn2").max().item<double>() < 1e-3);
  // By half a step at most.
  const torch::Tensor slope =
      GetTensor(applied.module, "bn2.weight") / (GetTensor(applied.module, "bn2.running_var") + 1e-5).sqrt();
  const torch::Tensor steps = (applied.weights[1].scales * slope * applied.activations[1].scale).abs();
  CHECK(((GetTensor(applied.module, "bn2.bias") - before).abs() / steps).max().item<double>() < 0.501);
  CHECK(torch::equal(GetTensor(network.module, "bn2.bias"), before));  // the network keeps its own
  RoundBiases(network, applied);
  CHECK(OffSteps(applied, 1, "bn2").max().item<double>() < 1e-3);
}

TEST_CASE("a layer's own bias becomes a whole number of steps, and stays where the input is in float or of 16 bits") {
  const Network network = testing::ImagesFirst();
  for (const int activations : {8, 16, 32}) {
    INFO(activations);
    AppliedPlan applied = WithIntegers(network, 4, activations);
    const torch::Tensor before = GetTensor(applied.module, "emb.bias").clone();
    RoundBiases(network, applied);
    const torch::Tensor now = GetTensor(applied.module, "emb.bias");
    if (activations > 8) {
      CHECK(torch::equal(now, before));
      continue;
    }
    const torch::Tensor counts = now.to(torch::kFloat64) / (applied.weights[0].scales.to(torch::kFloat64) *
                                                            static_cast<double>(applied.activations[0].scale));
    CHECK((counts - counts.round()).abs().max().item<double>() < 1e-3);
    CHECK_FALSE(torch::equal(now, before));
  }
}

}  // namespace
}  // namespace bitplan
