#include "bitplan/verify/batch_norm.h"

#include "bitplan/core/error.h"
#include "bitplan/models/tap.h"
#include "bitplan/verify/apply.h"
#include "bitplan/verify/evaluate.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

QuantizerOptions Method(const std::string& method) {
  QuantizerOptions options;
  options.batch_norm = method;
  return options;
}

double LargestChange(const Network& network, const torch::jit::Module& a, const torch::jit::Module& b) {
  double change = 0.0;
  for (const BatchNorm& norm : network.batch_norms) {
    for (const std::string& path : {norm.running_mean, norm.running_var}) {
      change = std::max(change, (GetTensor(a, path) - GetTensor(b, path)).abs().max().item<double>());
    }
  }
  return change;
}

TEST_CASE("transfer changes nothing in a network that is not quantized") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 300);
  torch::jit::Module copy = CloneModule(network.module);
  const auto correction =
      CorrectBatchNorm(network, copy, Method("transfer"), data.images, data, Normalizer({}), SilentSink());
  CHECK(correction.chosen == "transfer");
  CHECK(LargestChange(network, copy, network.module) < 1e-4);
}

TEST_CASE("after re-estimation every batch norm holds the statistics of the input that it sees, in order") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 200);
  torch::jit::Module quantized = ApplyBits(network, {1, 1, 2}, {}, {}, nullptr).module;
  (void)CorrectBatchNorm(network, quantized, Method("re-estimate"), data.images, data, Normalizer({}), SilentSink());
  CHECK(LargestChange(network, quantized, network.module) > 0.05);
  int seen = 0;
  const Tap tap(network, quantized,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
                   const auto [var, mean] = torch::var_mean(input, std::vector<std::int64_t>{0, 2, 3}, false);
                   const BatchNorm& norm = network.batch_norms[index];
                   CHECK(torch::allclose(GetTensor(quantized, norm.running_mean), mean, 1e-3, 1e-4));
                   CHECK(torch::allclose(GetTensor(quantized, norm.running_var), var, 1e-3, 1e-4));
                   ++seen;
                 }});
  quantized.forward({data.images});
  CHECK(seen == 2);
}

TEST_CASE("'auto' takes the candidate with the least calibration loss, never worse than off") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 400);
  const torch::jit::Module plain = ApplyBits(network, {1, 1, 8}, {}, {}, nullptr).module;
  torch::jit::Module corrected = CloneModule(plain);
  const auto correction =
      CorrectBatchNorm(network, corrected, Method("auto"), data.images, data, Normalizer({}), SilentSink());
  REQUIRE(correction.calibration_nll.size() == 3);
  const auto nll = [&](const torch::jit::Module& module) {
    return EvaluateLogits(PredictLogits(module, data, Normalizer({}), 64, "", SilentSink()), data.labels).metrics.nll;
  };
  CHECK(correction.calibration_nll[0] == Approx(nll(plain)).epsilon(1e-4));
  const double best = *std::min_element(correction.calibration_nll.begin(), correction.calibration_nll.end());
  CHECK(nll(corrected) == Approx(best).epsilon(1e-4));
  CHECK(best < correction.calibration_nll[0]);  // at one bit the correction is worth something
  CHECK(correction.chosen != "off");
}

TEST_CASE("'off' and networks without batch norm are left alone") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 50);
  torch::jit::Module quantized = ApplyBits(network, {1, 1, 1}, {}, {}, nullptr).module;
  const std::string before = ModelHash(quantized);
  CHECK(CorrectBatchNorm(network, quantized, Method("off"), data.images, data, Normalizer({}), SilentSink()).chosen ==
        "off");
  CHECK(ModelHash(quantized) == before);
  const Network plain = testing::SoftmaxRegression(4, 3, 0.5);
  torch::jit::Module copy = CloneModule(plain.module);
  CHECK(CorrectBatchNorm(plain, copy, Method("transfer"), torch::zeros({1, 1, 1, 4}), {}, Normalizer({}), SilentSink())
            .chosen == "off");
}

TEST_CASE("'auto' without calibration images is a usage error") {
  const Network network = ConvBatchNorm();
  torch::jit::Module copy = CloneModule(network.module);
  CHECK_THROWS_AS(
      CorrectBatchNorm(network, copy, Method("auto"), torch::zeros({4, 1, 8, 8}), {}, Normalizer({}), SilentSink()),
      Error);
}

}  // namespace
}  // namespace bitplan
