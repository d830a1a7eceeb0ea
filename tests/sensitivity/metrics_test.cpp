#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/quantizers/quantizer.h"
#include "bitplan/sensitivity/displacements.h"
#include "bitplan/sensitivity/joint_plans.h"
#include "bitplan/sensitivity/network_oracle.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

struct Setting {
  Network network = ConvBatchNorm();
  Dataset data = RandomImages(network, 128);
  Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  Posterior posterior;

  Setting() {
    quantizer.batch_norm = "off";
    posterior = EstimatePosterior(network, data, normalizer, {.samples = 128, .batch = 4}, 1, SilentSink());
  }
  [[nodiscard]] SensitivityInputs Inputs(const std::string& metric, const std::vector<int>& widths) const {
    SensitivityOptions options;
    options.metric = metric;
    options.samples = 128;
    return {.network = network,
            .posterior = &posterior,
            .train = data,
            .normalizer = normalizer,
            .quantizer = quantizer,
            .options = options,
            .widths = widths,
            .seed = 1};
  }
};

TEST_CASE("every metric of the list falls with the bits and leaves the network as it was") {
  const Setting setting;
  const std::string before = ModelHash(setting.network.module);
  for (const auto& metric : SensitivityMetrics()) {
    const AllocationProblem problem = MeasureSensitivity(setting.Inputs(metric.name, {2, 4, 8}), SilentSink());
    INFO(metric.name);
    REQUIRE(problem.loss_rise.size() == 3);
    for (const auto& rise : problem.loss_rise) {
      CHECK(rise[0] > rise[1]);
      CHECK(rise[1] > rise[2]);
      CHECK(rise[2] >= 0.0);
    }
    CHECK(ModelHash(setting.network.module) == before);
  }
}

TEST_CASE("replicates of a table scatter about it, more where fewer images were seen") {
  const Setting setting;
  for (const std::string metric : {"posterior", "measured", "predictive"}) {
    const auto spread = [&](int samples) {
      auto inputs = setting.Inputs(metric, {2, 4});
      inputs.options.samples = samples;
      const AllocationProblem problem = MeasureSensitivity(inputs, SilentSink());
      REQUIRE(problem.replicates.size() >= 16);
      double mean = 0.0, square = 0.0;
      for (const auto& replicate : problem.replicates) {
        mean += replicate[1][0];
        square += replicate[1][0] * replicate[1][0];
      }
      const auto count = static_cast<double>(problem.replicates.size());
      mean /= count;
      const double deviation = std::sqrt(std::max(0.0, square / count - mean * mean));
      INFO(metric << " " << samples);
      CHECK(deviation > 0.0);
      CHECK(std::abs(mean - problem.loss_rise[1][0]) < deviation);  // 1 / sqrt(32) of it is expected
      return deviation / mean;
    };
    const double relative = spread(128);
    // The draws of `posterior` are minibatches: 32 images are two of them, which tell nothing.
    if (metric != "posterior") CHECK(relative < spread(32));
  }
}

TEST_CASE("added displacements of one layer are what that layer alone does") {
  const Setting setting;
  auto inputs = setting.Inputs("predictive", {1, 3});
  Displacements displacements;
  inputs.displacements = &displacements;
  const AllocationProblem problem = MeasureSensitivity(inputs, SilentSink());
  JointPlans joint(inputs);
  for (int layer = 0; layer < 3; ++layer) {
    for (int column = 0; column < 2; ++column) {
      std::vector<int> columns(3, kFloatColumn);
      columns[static_cast<std::size_t>(layer)] = column;
      const double alone = problem.loss_rise[static_cast<std::size_t>(layer)][static_cast<std::size_t>(column)];
      CHECK(displacements.Divergence(columns) == Approx(alone).epsilon(1e-3).margin(1e-7));
      CHECK(joint.Measure(columns).divergence == Approx(alone).epsilon(1e-2).margin(1e-6));
    }
  }
  CHECK(displacements.Divergence({kFloatColumn, kFloatColumn, kFloatColumn}) == Approx(0.0).margin(1e-7));
}

TEST_CASE("random plans stay under the limit and are those of the seed") {
  const Setting setting;
  const auto inputs = setting.Inputs("measured", {1, 2, 4, 8});
  const RandomPlans plans = DrawRandomPlans(inputs, 8, 0.5, 3, SilentSink());
  REQUIRE(plans.columns.size() == 8);
  for (const JointRise& rise : plans.rises) {
    CHECK(rise.divergence <= 0.5);
    CHECK(rise.loss_rise <= 0.5);
  }
  CHECK(DrawRandomPlans(inputs, 8, 0.5, 3, SilentSink()).columns == plans.columns);
  CHECK(DrawRandomPlans(inputs, 8, 0.5, 4, SilentSink()).columns != plans.columns);
}

TEST_CASE("the oracle's gradient is the slope of its loss, and a pure mixture is a plan") {
  const Setting setting;
  const auto inputs = setting.Inputs("measured", {2, 4});
  const auto oracle = MakeNetworkOracle(inputs, 64);
  std::vector<std::vector<double>> gradient;
  const double pure = oracle->LossAndGradient({{1, 0}, {0, 1}, {1, 0}}, gradient);
  CHECK(oracle->Loss({0, 1, 0}) == Approx(pure).epsilon(1e-5));
  const auto at = [&](double share) {
    std::vector<std::vector<double>> ignored;
    return oracle->LossAndGradient({{0.5, 0.5}, {1.0 - share, share}, {0.5, 0.5}}, ignored);
  };
  (void)oracle->LossAndGradient({{0.5, 0.5}, {0.5, 0.5}, {0.5, 0.5}}, gradient);
  const double slope = (at(0.55) - at(0.45)) / 0.1;
  CHECK(gradient[1][1] - gradient[1][0] == Approx(slope).epsilon(0.1).margin(1e-4));
}

}  // namespace
}  // namespace bitplan
