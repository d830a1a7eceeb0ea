#include "bitplan/sensitivity/sensitivity.h"

#include <algorithm>
#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/quantizers/quantizer.h"
#include "sensitivity/units.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;
using testing::SoftmaxRegression;

struct LaplaceSetting {
  Network network;
  Dataset data;
  Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  SensitivityOptions options;
  Posterior posterior;

  LaplaceSetting(Network net, std::int64_t images) : network(std::move(net)), data(RandomImages(network, images)) {
    PosteriorOptions laplace;
    laplace.samples = static_cast<int>(images);
    laplace.batch = 4;
    posterior = EstimatePosterior(network, data, normalizer, laplace, 1, SilentSink());
    options.samples = static_cast<int>(images);
  }
  [[nodiscard]] AllocationProblem Measure(const std::vector<int>& widths, std::uint64_t seed = 1) const {
    return MeasureSensitivity({network, &posterior, data, normalizer, quantizer, options, widths, seed}, SilentSink());
  }
};

TEST_CASE("percentiles of a few equal weights ascend") {
  // Neither 1 - share nor share of this value is exact: their sum once fell from one percentile to the next.
  for (const float value : {-2.5657635F, 0.1F, 3.7F}) {
    const auto percentiles = Percentiles(torch::full({20}, value));
    CHECK(std::all_of(percentiles.begin(), percentiles.end(), [&](double one) { return one == value; }));
  }
}

TEST_CASE("without coherence the table is half the information times the squared rounding error") {
  LaplaceSetting setting(ConvBatchNorm(), 64);
  setting.options.coherence = false;
  const AllocationProblem problem = setting.Measure({0, 1, 2, 4});
  REQUIRE(problem.units.size() == 3);
  for (std::size_t l = 0; l < 3; ++l) {
    const Layer& layer = setting.network.layers[l];
    const torch::Tensor w = GetTensor(setting.network.module, layer.parameter);
    const WeightRows rows(w, layer.output_dim, setting.quantizer);
    for (std::size_t k = 0; k < 4; ++k) {
      const torch::Tensor error = rows.Values(rows.Fit(problem.widths[k], "auto")) - w;
      const double expected = 0.5 * (setting.posterior.Information(l) * error.square()).sum().item<double>();
      CHECK(problem.loss_rise[l][k] == Approx(expected).epsilon(1e-4));
    }
    CHECK(problem.units[l].coherence.empty());
  }
}

TEST_CASE("with coherence the table is the full quadratic form along the rounding error") {
  // Softmax regression: F = E[(diag(p) - p p^T) x x^T], so 1/2 dw^T F dw = 1/2 E[Var_p(dw_c . x)] in closed form.
  // Inputs with a large common part make the errors of a row act together.
  LaplaceSetting setting(SoftmaxRegression(40, 3, 0.05), 6000);
  setting.data.images = setting.data.images * 0.3 + 1.0;
  setting.posterior = EstimatePosterior(setting.network, setting.data, setting.normalizer,
                                        {.samples = 6000, .batch = 4}, 1, SilentSink());
  const AllocationProblem problem = setting.Measure({0, 1, 2, 3});
  torch::jit::Module module = setting.network.module;
  const torch::Tensor w = GetTensor(module, "fc.weight");
  const torch::Tensor p = module.forward({setting.data.images}).toTensor().softmax(1);
  const WeightRows rows(w, 0, setting.quantizer);
  double furthest = 1.0;
  for (std::size_t k = 0; k < problem.widths.size(); ++k) {
    const torch::Tensor error = rows.Values(rows.Fit(problem.widths[k], "auto")) - w;
    const torch::Tensor shift = torch::matmul(setting.data.images.flatten(1), error.t());
    const torch::Tensor variance = (p * shift.square()).sum(1) - (p * shift).sum(1).square();
    const double exact = 0.5 * variance.mean().item<double>();
    INFO("width " << problem.widths[k] << " coherence " << problem.units[0].coherence[k]);
    CHECK(problem.loss_rise[0][k] == Approx(exact).epsilon(0.2));
    furthest = std::max(furthest, std::abs(std::log2(problem.units[0].coherence[k])));
  }
  CHECK(furthest > 1.0);  // otherwise this test would not need coherence
}

TEST_CASE("score percentiles are the bits at which rounding noise equals posterior noise") {
  const LaplaceSetting setting(SoftmaxRegression(5, 3, 0.5), 500);
  const AllocationProblem problem = setting.Measure({2, 4});
  const torch::Tensor information = setting.posterior.Information(0);
  const torch::Tensor sigma = (information * static_cast<double>(setting.posterior.data_size)).rsqrt();
  const torch::Tensor w = GetTensor(setting.network.module, "fc.weight");
  // The quantizer's range reaches from -max |w| to max |w|.
  const torch::Tensor score = (2.0 * w.abs().amax(1, true) / (std::sqrt(12.0) * sigma)).log2();
  const Unit& unit = problem.units[0];
  REQUIRE(unit.score_percentiles.size() == kPercentiles);
  CHECK(unit.score_percentiles.front() == Approx(score.min().item<double>()).epsilon(1e-3));
  CHECK(unit.score_percentiles.back() == Approx(score.max().item<double>()).epsilon(1e-3));
  CHECK(unit.score_percentiles[50] == Approx(score.median().item<double>()).margin(0.05));
  CHECK(unit.log_sigma_percentiles[100] == Approx(sigma.log2().max().item<double>()).epsilon(1e-3));
  CHECK(std::is_sorted(unit.score_percentiles.begin(), unit.score_percentiles.end()));
}

TEST_CASE("the measured metric is the divergence of predictions and leaves the network as it was") {
  LaplaceSetting setting(ConvBatchNorm(), 128);
  setting.options.metric = "measured";
  setting.options.samples = 128;
  const torch::Tensor before = GetTensor(setting.network.module, "conv2.weight").clone();
  const AllocationProblem problem = setting.Measure({0, 2, 8});
  CHECK(torch::equal(GetTensor(setting.network.module, "conv2.weight"), before));
  for (const auto& rise : problem.loss_rise) {
    CHECK(rise[0] > rise[1]);
    CHECK(rise[1] > rise[2]);
    CHECK(rise[2] < 1e-3);
  }
  // One entry by hand: zero weights in the last layer predict the uniform distribution.
  torch::jit::Module module = setting.network.module;
  const torch::Tensor logp = module.forward({setting.data.images}).toTensor().log_softmax(1);
  const double expected = (logp.exp() * (logp + std::log(4.0))).sum(1).mean().item<double>();
  CHECK(problem.loss_rise[2][0] == Approx(expected).epsilon(1e-3));
}

TEST_CASE("at high widths the posterior predicts what is measured") {
  LaplaceSetting setting(SoftmaxRegression(30, 4, 0.4), 6000);
  const AllocationProblem predicted = setting.Measure({3, 4, 5});
  setting.options.metric = "measured";
  const AllocationProblem measured = setting.Measure({3, 4, 5});
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(predicted.loss_rise[0][k] == Approx(measured.loss_rise[0][k]).epsilon(0.25));
  }
}

TEST_CASE("the same seed gives the same table") {
  const LaplaceSetting setting(ConvBatchNorm(), 64);
  CHECK(setting.Measure({1, 2, 3}).loss_rise == setting.Measure({1, 2, 3}).loss_rise);
  CHECK(setting.Measure({1, 2, 3}).loss_rise != setting.Measure({1, 2, 3}, 2).loss_rise);
}

TEST_CASE("an unknown metric names the nearest one, and the posterior metric needs a posterior") {
  CHECK_THROWS_WITH(FindSensitivityMetric("mesured"), ContainsSubstring("nearest: measured"));
  const LaplaceSetting setting(SoftmaxRegression(4, 3, 0.5), 50);
  CHECK_THROWS_AS(
      MeasureSensitivity(
          {setting.network, nullptr, setting.data, setting.normalizer, setting.quantizer, setting.options, {2}, 1},
          SilentSink()),
      Error);
}

}  // namespace
}  // namespace bitplan
