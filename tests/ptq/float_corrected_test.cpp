// The second reference of a plan: the float network with the correction that the quantized network got.
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "bitplan/models/tap.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/verify/evaluate.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;

const std::vector<bool> kAllRounded = {true, true, true};

double LargestDifference(const torch::jit::Module& a, const torch::jit::Module& b, const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  return (RunForward(a, images) - RunForward(b, images)).abs().max().item<double>();
}

torch::jit::Module Quantized(const Network& network, const CorrectionMethod& method, int bits, const Dataset& data) {
  QuantizerOptions options;
  options.batch_norm = method.batch_norm;
  options.output_correction = method.outputs;
  AppliedPlan applied = ApplyBits(network, {bits, bits, bits}, {}, {}, {});
  const auto correction = CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink());
  CHECK(correction.chosen.batch_norm == method.batch_norm);
  CHECK(correction.chosen.outputs == method.outputs);
  return applied.module;
}

TEST_CASE("of all corrections only re-estimated batch norms change a network that is not quantized") {
  const Network network = ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 300);
  const std::string before = ModelHash(network.module);
  for (const char* batch_norm : {"off", "transfer", "re-estimate"}) {
    for (const char* outputs : {"off", "fit"}) {
      const CorrectionMethod method{batch_norm, outputs};
      INFO(batch_norm << " " << outputs);
      const auto corrected = CorrectFloat(network, method, kAllRounded, {}, data.images);
      const double difference = LargestDifference(corrected, network.module, data.images);
      if (ChangesFloat(method)) {
        CHECK(difference > 0.1);
      } else {
        CHECK(difference < 1e-4);
      }
    }
  }
  CHECK(ModelHash(network.module) == before);
}

TEST_CASE("the corrected float network is what a quantized one with the same correction tends to with more bits") {
  const Network network = ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 300);
  for (const char* outputs : {"off", "fit"}) {
    const CorrectionMethod method{"re-estimate", outputs};
    INFO(outputs);
    const auto corrected = CorrectFloat(network, method, kAllRounded, {}, data.images);
    const auto distance = [&](int bits) {
      return LargestDifference(Quantized(network, method, bits, data), corrected, data.images);
    };
    const double at_8 = distance(8), at_4 = distance(4);
    CHECK(at_8 < 0.3 * at_4);
    CHECK(at_8 < 0.2 * LargestDifference(corrected, network.module, data.images));
  }
}

TEST_CASE("outputs of a layer that the plan leaves in float are not fitted in the float reference either") {
  const Network network = ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 300);
  const auto weight = [&](const std::vector<bool>& rounded) {
    return GetTensor(CorrectFloat(network, {"re-estimate", "fit"}, rounded, {}, data.images), "fc.weight");
  };
  CHECK(torch::equal(weight({true, true, false}), GetTensor(network.module, "fc.weight")));
  CHECK_FALSE(torch::allclose(weight(kAllRounded), GetTensor(network.module, "fc.weight"), 1e-3));
}

TEST_CASE("a correction of the float network needs images") {
  const Network network = ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 8);
  CHECK_THROWS_WITH(CorrectFloat(network, {"re-estimate", "off"}, kAllRounded, {}, data.images.slice(0, 0, 0)),
                    ContainsSubstring("quantizer.correction_samples"));
}

// Batch-norm statistics as of a network that was saved after training on something else.
Network Spoiled(const Network& sound) {
  torch::jit::Module module = CloneModule(sound.module);
  torch::manual_seed(3);
  for (const BatchNorm& norm : sound.batch_norms) {
    GetTensor(module, norm.running_mean).add_(2.0 * torch::randn(8));
    GetTensor(module, norm.running_var).mul_(torch::exp(1.5 * torch::randn(8)));
  }
  return DescribeNetwork(module, "spoiled", sound.input_shape);
}

// Makes every class as likely as any other, and answers sure: the mean input of the last layer gives logits of zero.
void CentreAnswers(Network& network, const torch::Tensor& images) {
  torch::Tensor mean;
  {
    const Tap tap(network, network.module,
                  {.on_layer_input =
                       [&](std::size_t layer, const torch::Tensor& input) {
                         if (layer == 2) mean = input.mean(0);
                       },
                   .on_layer_output = nullptr,
                   .on_batch_norm_input = nullptr});
    (void)RunForward(network.module, images);
  }
  const torch::Tensor weight = GetTensor(network.module, "fc.weight");
  weight.sub_(torch::outer(torch::mv(weight, mean), mean) / mean.square().sum()).mul_(60.0);
}

TEST_CASE("spoiled statistics: the quantized network beats the float one, not the float one with the same correction") {
  Network sound = ConvBatchNorm();
  const Dataset train = testing::RandomImages(sound, 600);
  {
    QuantizerOptions options;
    options.batch_norm = "re-estimate";
    options.output_correction = "off";
    AppliedPlan same{sound.module, {}, {}, std::vector<QuantizedTensor>(sound.layers.size())};
    (void)CorrectNetwork(sound, same, options, train.images, train, Normalizer({}), SilentSink());
    CentreAnswers(sound, train.images);
  }
  const Dataset test = testing::RandomImages(sound, 500, 12);
  const Network network = Spoiled(sound);
  const CorrectionMethod method{"re-estimate", "off"};
  const auto quantized = Quantized(network, method, 6, train);
  const auto corrected = CorrectFloat(network, method, kAllRounded, {}, train.images);
  const VerifyOptions options{.batch = 100, .bootstrap = 500};
  const auto verified =
      VerifyPaired(network.module, quantized, test, Normalizer({}), options, 1, SilentSink(), corrected);
  REQUIRE(verified.float_corrected);
  const auto& reference = *verified.float_corrected;
  INFO(verified.float_model.accuracy << " " << reference.metrics.accuracy << " " << verified.quantized.accuracy);
  CHECK(verified.accuracy_drop.ci_high < -0.1);  // a gain, by the first reference
  CHECK(reference.accuracy_drop.ci_high > 0.0);  // none, by the second
  CHECK(reference.accuracy_drop.drop == Approx(reference.metrics.accuracy - verified.quantized.accuracy).margin(1e-9));
  const auto own = VerifyPaired(corrected, quantized, test, Normalizer({}), options, 1, SilentSink());
  CHECK(own.float_model.nll == reference.metrics.nll);
  CHECK(own.accuracy_drop.ci_low == reference.accuracy_drop.ci_low);
  CHECK(own.accuracy_drop.mcnemar_p == reference.accuracy_drop.mcnemar_p);
  CHECK_FALSE(own.float_corrected);
}

}  // namespace
}  // namespace bitplan
