// Plans of weights and activations: the network that is measured, and how plans are drawn.
#include "bitplan/core/likelihood_oracle.h"
#include "bitplan/ptq/activations.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/sensitivity/joint_plans.h"
#include "quantizers/rounded_reads.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/residual_network.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ActivationSetting;
using testing::ResidualBatchNorm;

TEST_CASE("the measured network of a plan is the one that is deployed: rounded weights, activations, batch norms") {
  const torch::NoGradGuard no_grad;
  const Network network = ResidualBatchNorm();
  ActivationSetting setting(network, 200);
  setting.quantizer.batch_norm = "transfer";
  setting.quantizer.output_correction = "off";
  const SensitivityInputs inputs = setting.On(network, {2, 4, 8});
  const ActivationLevels levels = FitActivationLevels(inputs, {2, 3, 6}, "max");
  JointPlans plans(inputs, &levels);
  const torch::Tensor before = RunForward(network.module, setting.data.images).log_softmax(1);
  const auto measured = [&](const std::vector<int>& columns, const std::vector<int>& activation_columns) {
    return plans.Measure(columns, activation_columns, 0).divergence;
  };
  const auto deployed = [&](const std::vector<int>& columns, const std::vector<int>& activation_columns) {
    std::vector<int> bits, activations;
    for (const int column : columns) bits.push_back(column < 0 ? 32 : inputs.widths[static_cast<std::size_t>(column)]);
    for (const int column : activation_columns) {
      activations.push_back(column < 0 ? 32 : levels.widths[static_cast<std::size_t>(column)]);
    }
    AppliedPlan applied = ApplyBits(network, bits, {}, setting.quantizer, {});
    QuantizeActivations(network, applied, activations, "max", setting.data.images, SilentSink());
    (void)CorrectNetwork(network, applied, setting.quantizer, setting.data.images, setting.data, setting.normalizer,
                         SilentSink());
    const torch::Tensor now = RunForward(applied.module, setting.data.images).log_softmax(1);
    return (before.exp() * (before - now)).sum(1).mean().item<double>();
  };
  // Two of the layers read one tensor, which is added behind them as well.
  const std::vector<std::pair<std::vector<int>, std::vector<int>>> cases = {{{2, 2, 2, 2}, {0, 1, 1, 2}},
                                                                            {{1, 0, 1, 2}, {2, 0, 0, 1}},
                                                                            {{2, 1, 2, 1}, {2, 2, 2, -1}},
                                                                            {{2, 2, 2, 2}, {0, 1, 1, 2}}};
  for (const auto& [columns, activation_columns] : cases) {
    const double wanted = deployed(columns, activation_columns);
    CHECK(wanted > 1e-4);
    CHECK(measured(columns, activation_columns) == Approx(wanted).epsilon(1e-3));
  }
  CHECK(measured({-1, -1, -1, -1}, {-1, -1, -1, -1}) < 1e-6);
}

TEST_CASE("a tensor is rounded to the levels that were asked for last, and back to what it was") {
  const torch::NoGradGuard no_grad;
  const Network network = ResidualBatchNorm();
  const ActivationSetting setting(network, 40);
  const std::string hash = ModelHash(network.module);
  RoundedReads reads(network);
  CHECK(reads.tensors() == std::vector<std::size_t>({0, 1, 1, 3}));
  CHECK((reads.rounds(0) && reads.rounds(1) && !reads.rounds(2) && reads.rounds(3)));
  const torch::Tensor exact = RunForward(network.module, setting.data.images);
  CHECK(RunForward(reads.module(), setting.data.images).equal(exact));
  const auto deployed = [&](int bits) {
    AppliedPlan applied = ApplyBits(network, {32, 32, 32, 32}, {}, {}, {});
    QuantizeActivations(network, applied, {32, bits, bits, 32}, "mse", setting.data.images, SilentSink());
    reads.Set(1, applied.activations[1]);
    return RunForward(applied.module, setting.data.images);
  };
  for (const int bits : {2, 8, 4}) {
    const torch::Tensor wanted = deployed(bits);
    CHECK(!wanted.equal(exact));
    CHECK(RunForward(reads.module(), setting.data.images).equal(wanted));
  }
  reads.Set(1, {});
  CHECK(RunForward(reads.module(), setting.data.images).equal(exact));
  CHECK(ModelHash(network.module) == hash);
}

TEST_CASE("a random plan gives a tensor one width, whoever reads it, and the same seed draws the same plans") {
  const Network network = ResidualBatchNorm();
  const ActivationSetting setting(network, 150);
  const SensitivityInputs inputs = setting.On(network, {2, 4, 6, 8});
  const ActivationLevels levels = FitActivationLevels(inputs, {2, 3, 5, 8}, "mse");
  const RandomPlans plans = DrawRandomPlans(inputs, 15, 10.0, 3, SilentSink(), &levels);
  REQUIRE(plans.columns.size() == 15);
  REQUIRE(plans.activation_columns.size() == 15);
  JointPlans measure(inputs, &levels);
  std::set<int> seen;
  int different = 0;
  for (std::size_t p = 0; p < plans.columns.size(); ++p) {
    const std::vector<int>& columns = plans.activation_columns[p];
    REQUIRE(columns.size() == 4);
    CHECK(columns[1] == columns[2]);
    different += columns[0] != columns[1] || columns[1] != columns[3] ? 1 : 0;
    seen.insert(columns.begin(), columns.end());
    CHECK(measure.Measure(plans.columns[p], columns, 0).divergence ==
          Approx(plans.rises[p].divergence).epsilon(1e-4).margin(1e-7));
  }
  CHECK(seen == std::set<int>({0, 1, 2, 3}));
  CHECK(different > 10);
  const RandomPlans again = DrawRandomPlans(inputs, 15, 10.0, 3, SilentSink(), &levels);
  CHECK(again.activation_columns == plans.activation_columns);
  CHECK(DrawRandomPlans(inputs, 15, 10.0, 4, SilentSink(), &levels).activation_columns != plans.activation_columns);
  // The widths of weights are those of plans that leave activations in float, as long as no plan is drawn again.
  CHECK(DrawRandomPlans(inputs, 15, 10.0, 3, SilentSink()).columns == plans.columns);
}

TEST_CASE("an input that is looked up and not multiplied stays in float in every plan") {
  torch::manual_seed(8);
  torch::jit::Module module("words");
  module.register_parameter("table", torch::randn({12, 8}), false);
  module.register_parameter("fc", torch::randn({5, 8}), false);
  module.define(
      "def forward(self, x):\n  return torch.linear(torch.mean(torch.embedding(self.table, x.abs().long().clamp(0, "
      "11)), [1]), "
      "self.fc)\n");
  module.eval();
  const Network network = DescribeNetwork(module, "words", {6});
  const ActivationSetting setting(network, 60);
  const SensitivityInputs inputs = setting.On(network, {4, 8});
  const ActivationLevels levels = FitActivationLevels(inputs, {2, 4}, "mse");
  CHECK(!levels.rounds(0));
  CHECK(levels.rounds(1));
  for (const auto& columns : DrawRandomPlans(inputs, 5, 50.0, 1, SilentSink(), &levels).activation_columns) {
    CHECK(columns[0] == kFloatColumn);
    CHECK(columns[1] != kFloatColumn);
  }
}

}  // namespace
}  // namespace bitplan
