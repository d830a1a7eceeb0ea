#include <numeric>

#include "allocators/problems.h"
#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

const std::vector<int> kAllWidths = {1, 2, 3, 4, 5, 6, 7, 8};

// Units whose scores are constants (every weight alike), so that every quantile is the score itself.
AllocationProblem Constant(const std::vector<std::int64_t>& weights, const std::vector<double>& scores,
                           const std::vector<int>& widths = kAllWidths) {
  AllocationProblem problem;
  problem.widths = widths;
  for (std::size_t u = 0; u < weights.size(); ++u) {
    Unit unit;
    unit.name = "layer" + std::to_string(u);
    unit.weights = weights[u];
    unit.score_percentiles.assign(kPercentiles, scores[u]);
    unit.log_sigma_percentiles.assign(kPercentiles, -scores[u]);
    problem.units.push_back(unit);
    std::vector<double> rises;  // n / 2 * noise variance / posterior variance
    for (const int bits : widths) {
      rises.push_back(0.5 * static_cast<double>(weights[u]) * std::exp2(2.0 * (scores[u] - bits)));
    }
    problem.loss_rise.push_back(rises);
  }
  return problem;
}

Allocation Run(const AllocationProblem& problem, double average_bits, const std::string& mode = "information",
               double quantile = 0.9) {
  AllocateOptions options = Options("quantile-inform", problem, {AverageBits(), average_bits});
  options.mode = mode;
  options.quantile = quantile;
  options.guard = false;
  return Allocate(problem, options, 1);
}

bool AnyStepFits(const AllocationProblem& problem, const Allocation& answer, const Budget& budget) {
  const Resource& resource = budget.limits[0].resource;
  const std::int64_t left = Capacity(problem, budget.limits[0]) - answer.cost.at(0);
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    const auto next = std::upper_bound(problem.widths.begin(), problem.widths.end(), answer.bits[u]);
    if (next == problem.widths.end()) continue;
    if (Cost(problem.units[u], *next, resource) - Cost(problem.units[u], answer.bits[u], resource) <= left) {
      return true;
    }
  }
  return false;
}

}  // namespace

TEST_CASE("quantile-inform is reverse water-filling: whole-bit optima are met exactly") {
  // Optimum b_u = average + s_u - weighted mean(s); the weighted mean of the scores here is 2.
  const AllocationProblem problem = Constant({100, 200, 300, 200}, {5.0, 3.0, 1.0, 1.0});
  CHECK(Run(problem, 4.0).bits == std::vector<int>{7, 5, 3, 3});
  CHECK(Run(problem, 5.0).bits == std::vector<int>{8, 6, 4, 4});
}

TEST_CASE("quantile-inform stays within a bit of reverse water-filling and near the exact optimum") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream stream(seed, "test/water");
    std::vector<std::int64_t> weights;
    std::vector<double> scores;
    double mass = 0.0, mean = 0.0;
    for (int u = 0; u < 40; ++u) {
      weights.push_back(500 + static_cast<std::int64_t>(stream.Index(1000)));
      scores.push_back(stream.Uniform(-1.5, 1.5));
      mass += static_cast<double>(weights.back());
      mean += static_cast<double>(weights.back()) * scores.back();
    }
    mean /= mass;
    const AllocationProblem problem = Constant(weights, scores);
    const Allocation answer = Run(problem, 4.5);
    double average = 0.0;
    for (int u = 0; u < 40; ++u) {
      CHECK(std::abs(answer.bits[u] - (4.5 + scores[u] - mean)) < 1.0);
      average += static_cast<double>(weights[u] * answer.bits[u]) / mass;
    }
    CHECK(average <= 4.5);
    CHECK(average > 4.45);
    const double best = Allocate(problem, Options("exact", problem, {AverageBits(), 4.5}), 1).predicted_loss_rise;
    CHECK(answer.predicted_loss_rise < 1.05 * best);
  }
}

TEST_CASE("nothing is left over that another step could use") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    RandomStream stream(seed, "test/leftover");
    const AllocationProblem problem = RandomProblem(stream, 15, seed % 2 ? kAllWidths : std::vector<int>{1, 2, 4, 8});
    for (const Resource& resource : LayerResources()) {
      const Budget budget = BudgetAt(problem, resource, stream.Uniform());
      const Allocation answer = Allocate(problem, Options("quantile-inform", problem, budget), 1);
      CAPTURE(seed);
      CHECK_FALSE(AnyStepFits(problem, answer, budget));
    }
  }
}

TEST_CASE("a large layer that does not fit does not keep a small one behind it from its bits") {
  // The large layer is next in line at every offset; the budget has room for the small one only.
  const AllocationProblem problem = Constant({1000, 10}, {3.2, 3.0});
  CHECK(Run(problem, 2.5).bits == std::vector<int>{2, 8});
}

TEST_CASE("a higher score never gets fewer bits among layers of one size") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream stream(seed, "test/order");
    std::vector<double> scores;
    for (int u = 0; u < 20; ++u) scores.push_back(stream.Uniform(-4.0, 4.0));
    const Allocation answer = Run(Constant(std::vector<std::int64_t>(20, 64), scores), stream.Uniform(1.0, 8.0));
    for (int a = 0; a < 20; ++a) {
      for (int b = 0; b < 20; ++b) {
        if (scores[a] > scores[b]) CHECK(answer.bits[a] >= answer.bits[b]);
      }
    }
  }
}

TEST_CASE("widths with holes are reached by the nearest one") {
  const AllocationProblem problem = Constant({100, 100, 100}, {5.0, 3.2, 1.0}, {1, 2, 4, 8});
  // With offset 0: 5 -> 4 (the midpoint to 8 is 6), 3.2 -> 4 (above the midpoint 3), 1 -> 1.
  CHECK(Run(problem, 3.0).bits == std::vector<int>{4, 4, 1});
}

TEST_CASE("a layer whose rounding errors act together at two bits is not left there") {
  AllocationProblem problem = Constant({100, 100, 100, 100}, {3.0, 3.0, 3.0, 1.0});
  REQUIRE(Run(problem, 3.5).bits == std::vector<int>{4, 4, 4, 2});
  for (Unit& unit : problem.units) unit.coherence.assign(kAllWidths.size(), 1.0);
  REQUIRE(Run(problem, 3.5).bits == std::vector<int>{4, 4, 4, 2});
  problem.units[3].coherence[0] = problem.units[3].coherence[1] = 16.0;  // 1/2 log2(16) = 2 bits more at one and two
  CHECK(Run(problem, 3.5).bits[3] == 3);
  // Narrower choices keep the correction of the width that it was measured for.
  AllocateOptions options = Options("quantile-inform", problem, {AverageBits(), 3.5});
  options.bits = {2, 3, 4};
  CHECK(Allocate(problem, options, 1).bits[3] == 3);
}

TEST_CASE("the quantile chooses which weights of a layer speak for it") {
  AllocationProblem problem = Constant({100, 100}, {2.0, 3.0});
  for (int p = 80; p < kPercentiles; ++p) problem.units[0].score_percentiles[p] = 6.0;  // a fifth of it is precious
  const auto low = Run(problem, 3.5, "information", 0.5).bits;
  const auto high = Run(problem, 3.5, "information", 0.9).bits;
  CHECK(low[0] < low[1]);
  CHECK(high[0] > high[1]);
  // Between two percentiles the score is interpolated: 0.795 lies halfway from 2 to 6.
  problem.units[1].score_percentiles.assign(kPercentiles, 4.1);
  CHECK(Run(problem, 4.5, "information", 0.795).bits == std::vector<int>{4, 5});
  problem.units[1].score_percentiles.assign(kPercentiles, 3.9);
  CHECK(Run(problem, 4.5, "information", 0.795).bits == std::vector<int>{5, 4});
}

TEST_CASE("a layer about which the data says next to nothing gets bits last") {
  AllocationProblem problem = Constant({100, 100}, {2.0, 0.0});
  problem.units[1].score_percentiles.assign(kPercentiles, -500.0);
  CHECK(Run(problem, 4.5).bits == std::vector<int>{8, 1});
  CHECK(Run(problem, 6.0).bits == std::vector<int>{8, 4});
}

TEST_CASE("without a posterior quantile-inform says which sensitivity metric it needs") {
  for (const char* mode : {"information", "rank"}) {
    AllocationProblem problem = Constant({100, 100}, {2.0, 3.0});
    problem.units[1].score_percentiles.clear();
    problem.units[1].log_sigma_percentiles.clear();
    CHECK_THROWS_WITH(Run(problem, 3.0, mode),
                      ContainsSubstring("layer1") && ContainsSubstring("sensitivity metric 'posterior'"));
  }
}

TEST_CASE("an unknown mode and a quantile outside 0..1 are usage errors") {
  const AllocationProblem problem = Constant({100}, {2.0});
  CHECK_THROWS_WITH(Run(problem, 3.0, "ranks"), ContainsSubstring("allocate.mode") && ContainsSubstring("rank"));
  CHECK_THROWS_WITH(Run(problem, 3.0, "information", 1.5), ContainsSubstring("allocate.quantile is 1.5"));
  CHECK_THROWS_AS(Run(problem, 3.0, "information", std::nan("")), Error);
}

TEST_CASE("rank mode cuts the order by sigma into segments of equal weight mass around the average") {
  const AllocationProblem problem = Constant(std::vector<std::int64_t>(10, 50), {9, 1, 8, 2, 7, 3, 6, 4, 5, 0});
  CHECK(Run(problem, 3.0, "rank").bits == std::vector<int>{5, 1, 5, 2, 4, 2, 4, 3, 3, 1});
}

TEST_CASE("quantile-inform-rank is mode rank, whatever mode the recipe asks for") {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    RandomStream stream(seed, "test/rank-by-name");
    const AllocationProblem problem = RandomProblem(stream, 12, kAllWidths);
    AllocateOptions options = Options("quantile-inform", problem, {AverageBits(), 3.0});
    options.mode = "rank";
    const Allocation by_mode = Allocate(problem, options, 1);
    options.allocator = "quantile-inform-rank";
    options.mode = "information";
    CHECK(Allocate(problem, options, 1).bits == by_mode.bits);
  }
  AllocateOptions options = Options("quantile-inform-rank", Constant({100}, {2.0}), {AverageBits(), 3.0});
  options.quantile = 1.5;
  CHECK_THROWS_WITH(Allocate(Constant({100}, {2.0}), options, 1), ContainsSubstring("allocate.quantile is 1.5"));
}

TEST_CASE("in rank mode a layer never has more bits than one with a lower sigma") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    RandomStream stream(seed, "test/rank");
    const AllocationProblem problem = RandomProblem(stream, 15, seed % 2 ? kAllWidths : std::vector<int>{0, 1, 2, 4});
    std::vector<int> order(15);
    std::iota(order.begin(), order.end(), 0);
    const auto sigma = [&](int u) { return problem.units[u].log_sigma_percentiles[10]; };  // 1 - the default quantile
    std::sort(order.begin(), order.end(), [&](int a, int b) { return sigma(a) < sigma(b); });
    AllocateOptions options = Options("quantile-inform", problem, BudgetAt(problem, StoredBytes(), stream.Uniform()));
    options.mode = "rank";
    const Allocation answer = Allocate(problem, options, 1);
    for (int i = 1; i < 15; ++i) CHECK(answer.bits[order[i]] <= answer.bits[order[i - 1]]);
  }
}

TEST_CASE("certain means small sigma in both modes: the surest tenth of a layer speaks for it") {
  // Layer 0 has a tenth of very sure weights among vague ones; layer 1 is middling throughout.
  AllocationProblem problem = Constant({100, 100}, {0.0, 4.0});
  for (int p = 0; p < kPercentiles; ++p) {
    problem.units[0].log_sigma_percentiles[p] = p <= 12 ? -8.0 : 2.0;
    problem.units[0].score_percentiles[p] = p >= kPercentiles - 1 - 12 ? 8.0 : -2.0;
  }
  for (const char* mode : {"information", "rank"}) {
    INFO(mode);
    const Allocation answer = Run(problem, 4.0, mode);
    CHECK(answer.bits[0] > answer.bits[1]);
  }
}

TEST_CASE("dead weights decide in neither mode until they are more than a share q of a layer") {
  constexpr double kDead = 12.0;  // log2 sigma of weights of which the data said nothing
  for (const char* mode : {"information", "rank"}) {
    INFO(mode);
    AllocationProblem problem = Constant({100, 100}, {5.0, 3.0});
    const auto kill = [&](int percent) {  // that many of the surer layer's weights
      for (int p = 0; p < kPercentiles; ++p) {
        problem.units[0].log_sigma_percentiles[p] = p < kPercentiles - percent ? -5.0 : kDead;
        problem.units[0].score_percentiles[p] = p < percent ? -kDead : 5.0;
      }
    };
    kill(80);
    const Allocation most = Run(problem, 4.0, mode);
    CHECK(most.bits[0] > most.bits[1]);
    kill(95);
    const Allocation nearly_all = Run(problem, 4.0, mode);
    CHECK(nearly_all.bits[0] < nearly_all.bits[1]);
  }
}
