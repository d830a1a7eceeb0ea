#include "bitplan/ptq/apply.h"

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/ptq/compensate.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/quantizers/quantizer.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;

Plan PlanFor(const Network& network) {
  Plan plan;
  plan.model.sha256 = ModelHash(network.module);
  for (const Layer& layer : network.layers) {
    PlanLayer entry;
    entry.name = layer.name;
    entry.kind = layer.kind;
    entry.shape = layer.shape;
    entry.macs = layer.macs;
    entry.bits = 4;
    plan.layers.push_back(entry);
  }
  return plan;
}

TEST_CASE("quantized weights go into a clone, the network keeps its own") {
  const Network network = ConvBatchNorm();
  const std::string hash = ModelHash(network.module);
  const AppliedPlan applied = ApplyBits(network, {2, 1, 32}, {}, {}, {});
  CHECK(ModelHash(network.module) == hash);
  const torch::Tensor conv1 = GetTensor(network.module, "conv1.weight");
  const WeightRows rows(conv1, 0, {});
  CHECK(torch::equal(GetTensor(applied.module, "conv1.weight"), rows.Values(rows.Fit(2, "auto"))));
  CHECK_FALSE(torch::equal(GetTensor(applied.module, "conv2.weight"), GetTensor(network.module, "conv2.weight")));
  CHECK(torch::equal(GetTensor(applied.module, "fc.weight"), GetTensor(network.module, "fc.weight")));
}

TEST_CASE("after rounding and corrections a network still holds what its codes and scales say, bit for bit") {
  const Network network = testing::ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 80);
  for (const char* granularity : {"channel", "tensor"}) {
    for (const char* outputs : {"off", "fit", "auto"}) {
      INFO(granularity << " " << outputs);
      QuantizerOptions options;
      options.granularity = granularity;
      options.batch_norm = "auto";
      options.output_correction = outputs;
      const std::vector<int> bits = {2, 32, 3};
      AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
      CompensateRounding(network, applied, bits, options, data.images, SilentSink());
      const torch::Tensor scales = applied.weights[2].scales.clone();
      const auto correction =
          CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink());
      CHECK_FALSE(applied.weights[1].defined());
      for (const std::size_t l : {0, 2}) {
        CHECK(torch::equal(applied.weights[l].Values(), GetTensor(applied.module, network.layers[l].parameter)));
      }
      // The factor of the outputs is in the scales of the last layer; no batch norm follows it.
      CHECK(torch::equal(applied.weights[2].scales, scales) == (correction.chosen.outputs == "off"));
    }
  }
}

TEST_CASE("scales that a correction changes are not those that were found once for all plans") {
  const Network network = testing::ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 80);
  QuantizerOptions options;
  options.output_correction = "fit";
  const LayerFits known = FitLayers(network, {2}, options, nullptr);
  const torch::Tensor found = known.Find(2, 2)->scales.clone();
  AppliedPlan applied = ApplyBits(network, {2, 2, 2}, {}, options, {}, &known);
  (void)CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink());
  CHECK(torch::equal(known.Find(2, 2)->scales, found));
  CHECK_FALSE(torch::equal(applied.weights[2].scales, found));
}

TEST_CASE("the grids that a plan records give the same weights again") {
  const Network network = ConvBatchNorm();
  const AppliedPlan first = ApplyBits(network, {2, 3, 2}, {}, {}, {});
  CHECK(ModelHash(ApplyBits(network, {2, 3, 2}, first.choices, {}, {}).module) == ModelHash(first.module));
  const AppliedPlan other = ApplyBits(network, {2, 3, 2}, {{"zero", "mse"}, {"zero", "mse"}, {"zero", "max"}}, {}, {});
  CHECK(other.choices[1] == LevelChoice{"zero", "mse"});
  CHECK(other.choices[2] == LevelChoice{"zero", "max"});
}

TEST_CASE("scales that are known give the weights that a search gives, and only what is missing is searched") {
  const Network network = ConvBatchNorm();
  const LayerFits known = FitLayers(network, {2, 3}, {}, nullptr);
  const AppliedPlan searched = ApplyBits(network, {2, 3, 32}, {}, {}, {});
  CHECK(AreKnown(known, {2, 3, 32}, {}, {}));
  CHECK(ModelHash(ApplyBits(network, {2, 3, 32}, {}, {}, {}, &known).module) == ModelHash(searched.module));
  CHECK(AreKnown(known, {2, 3, 32}, searched.choices, {}));
  CHECK_FALSE(AreKnown(known, {2, 4, 32}, {}, {}));
  CHECK(ModelHash(ApplyBits(network, {2, 4, 8}, {}, {}, {}, &known).module) ==
        ModelHash(ApplyBits(network, {2, 4, 8}, {}, {}, {}).module));
  LayerFits other = known;
  for (auto& fits : other.fits) fits[0].scales = fits[0].scales * 2.0;
  CHECK(ModelHash(ApplyBits(network, {2, 3, 32}, {}, {}, {}, &other).module) != ModelHash(searched.module));
}

TEST_CASE("the bits of a plan follow the names of its layers, not their order in the file") {
  const Network network = ConvBatchNorm();
  const std::string hash = ModelHash(network.module);
  Plan plan = PlanFor(network);
  plan.layers[0].bits = 2;
  plan.layers[2].bits = 7;
  Plan turned = plan;
  std::rotate(turned.layers.begin(), turned.layers.begin() + 1, turned.layers.end());
  const Plan fitted = FitPlan(turned, network, hash);
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    CHECK(fitted.layers[l].name == network.layers[l].name);
    CHECK(fitted.layers[l].bits == plan.layers[l].bits);
  }
}

TEST_CASE("a plan for another model is refused and says which layers differ") {
  const Network network = ConvBatchNorm();
  const std::string hash = ModelHash(network.module);
  CHECK_NOTHROW((void)FitPlan(PlanFor(network), network, hash));

  Plan unknown = PlanFor(network);
  unknown.layers[1].name = "conv9";
  CHECK_THROWS_WITH(FitPlan(unknown, network, hash), ContainsSubstring("the model has no layer conv9") &&
                                                         ContainsSubstring("the plan has no layer conv2"));
  Plan twice = PlanFor(network);
  twice.layers[1] = twice.layers[0];
  CHECK_THROWS_WITH(FitPlan(twice, network, hash), ContainsSubstring("gives layer conv1 twice"));
  Plan reshaped = PlanFor(network);
  reshaped.layers[0].shape = {8, 1, 5, 5};
  CHECK_THROWS_WITH(FitPlan(reshaped, network, hash),
                    ContainsSubstring("conv1 is [8, 1, 5, 5] in the plan and [8, 1, 3, 3] in the model"));
  Plan retrained = PlanFor(network);
  retrained.model.sha256 = std::string(64, '0');
  CHECK_THROWS_WITH(FitPlan(retrained, network, hash), ContainsSubstring("other weights"));
}

TEST_CASE("a transferred plan takes the layers by name and says where its widths came from") {
  const Network network = ConvBatchNorm();
  const std::string hash = ModelHash(network.module);
  Plan plan = PlanFor(network);
  plan.model = {"before", std::string(64, '0'), network.quantizable_weights()};
  plan.layers[0].bits = 7;
  plan.layers[0].macs += 1;
  std::swap(plan.layers[0], plan.layers[2]);
  plan = TransferPlan(plan, network, hash);
  CHECK_NOTHROW(FitPlan(plan, network, hash));
  for (std::size_t l = 0; l < plan.layers.size(); ++l) CHECK(plan.layers[l].name == network.layers[l].name);
  CHECK(plan.layers[0].bits == 7);
  REQUIRE(plan.transferred);
  CHECK(plan.transferred->sha256 == std::string(64, '0'));
  Plan wrong = PlanFor(network);
  wrong.layers[1].kind = "linear";
  CHECK_THROWS_WITH(TransferPlan(wrong, network, hash), ContainsSubstring(wrong.layers[1].name));
}

}  // namespace
}  // namespace bitplan
