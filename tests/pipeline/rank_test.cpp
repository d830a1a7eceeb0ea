// Metrics ranked by random plans, in one process.
#include "bitplan/pipeline/rank.h"

#include <algorithm>

#include "bitplan/core/error.h"
#include "pipeline/shared_network.h"
#include "pipeline/stage_chain.h"
#include "sensitivity/activation_tables.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::Folder;
using testing::PrepareShared;
using testing::SharedOptions;

pipeline::RankOptions RankingOf(const Folder& folder, const std::string& activation_bits) {
  pipeline::RankOptions rank;
  rank.recipe = SharedOptions(folder, {"sensitivity.metric=posterior", "allocate.activation_bits=" + activation_bits});
  rank.plans = 20;
  rank.samples = 100;
  rank.limit = 3.0;
  return rank;
}

const pipeline::RankRow& RowOf(const pipeline::RankReport& report, const std::string& metric) {
  for (const auto& row : report.rows) {
    if (row.metric == metric) return row;
  }
  FAIL("no row of " << metric);
  return report.rows.front();
}

TEST_CASE(
    "plans of weights and activations: every metric that knows both predicts them, by the sum of its two tables") {
  const Folder folder;
  PrepareShared(folder);
  const auto report = pipeline::RankMetrics(RankingOf(folder, "[6, 2, 4]"), SilentSink());
  REQUIRE(report.bits.size() == 20);
  REQUIRE(report.activation_bits.size() == 20);
  for (const auto& bits : report.activation_bits) {
    REQUIRE(bits.size() == 4);
    CHECK(bits[1] == bits[2]);  // b and c read one tensor
    for (const int width : bits) CHECK((width == 2 || width == 4 || width == 6));
  }
  std::vector<std::string> names;
  for (const auto& row : report.rows) names.push_back(row.metric);
  CHECK(names == std::vector<std::string>({"posterior-laplace", "posterior-svi", "measured", "predictive", "hawq",
                                           "activation-distance", "gradient", "fisher-output"}));
  for (const char* metric : {"posterior-laplace", "measured", "predictive"}) {
    INFO(metric << " " << RowOf(report, metric).spearman_divergence);
    CHECK(RowOf(report, metric).spearman_divergence > 0.75);
  }

  auto options = SharedOptions(folder, {"sensitivity.metric=posterior", "allocate.activation_bits=[6, 2, 4]"});
  options.overrides.emplace_back("allocate.bits=[0, 1, 2, 3, 4, 5, 6, 7, 8]");
  pipeline::StageChain chain(options, SilentSink());
  const auto inputs = chain.Inputs("measured", "laplace", false);
  const auto levels = FitActivationLevels(inputs, {2, 4, 6}, chain.recipe().quantizer.activation_range);
  const auto measured = MeasureActivationTable(inputs, levels, SilentSink());
  const auto posterior = chain.ActivationTable();
  REQUIRE(!posterior.together.empty());
  const auto& weights = chain.Table("measured");
  const auto& information = chain.Table("posterior", "laplace");
  for (std::size_t p = 0; p < report.bits.size(); ++p) {
    double by_rounding = 0.0, by_posterior = 0.0;
    for (std::size_t l = 0; l < 4; ++l) {
      const auto k = static_cast<std::size_t>(report.bits[p][l]);
      const auto a = static_cast<std::size_t>(report.activation_bits[p][l] / 2 - 1);
      by_rounding += weights.loss_rise[l][k];
      by_posterior += information.loss_rise[l][k] + posterior.together[l][k][a];
      if (l == 2) continue;  // its tensor has been counted
      by_rounding += measured.loss_rise[l][a];
      by_posterior += posterior.loss_rise[l][a];
    }
    CHECK(RowOf(report, "measured").predicted[p] == Approx(by_rounding).epsilon(1e-4));
    CHECK(RowOf(report, "posterior-laplace").predicted[p] == Approx(by_posterior).epsilon(1e-4));
  }
}

TEST_CASE("one width of activations, or none, leaves random plans what they were, and near plans take one at most") {
  const Folder folder;
  PrepareShared(folder);
  auto rank = RankingOf(folder, "[4]");
  rank.metrics = {"measured"};
  const auto one = pipeline::RankMetrics(rank, SilentSink());
  CHECK(one.activation_bits.empty());
  rank.recipe = SharedOptions(folder, {"sensitivity.metric=posterior"});
  const auto none = pipeline::RankMetrics(rank, SilentSink());
  CHECK(none.activation_bits.empty());
  CHECK(none.bits == one.bits);
  CHECK(none.divergence == one.divergence);
  const auto refused = [&](const pipeline::RankOptions& options) {
    try {
      (void)pipeline::RankMetrics(options, SilentSink());
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  auto near = RankingOf(folder, "[2, 4]");
  near.near = {3.0};
  CHECK_THAT(refused(near), ContainsSubstring("compare --sensitivity --near needs one of them"));
  auto compensated = RankingOf(folder, "[2, 4]");
  compensated.metrics = {"compensated"};
  CHECK_THAT(refused(compensated), ContainsSubstring("compensated"));
}

}  // namespace
}  // namespace bitplan
