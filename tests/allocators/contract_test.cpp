// The laws that every registered allocator obeys. A new allocator is under them as soon as it is in the list.
#include <algorithm>
#include <map>
#include <numeric>

#include "allocators/problems.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

const std::vector<std::vector<int>> kWidths = {{1, 2, 3, 4, 5, 6, 7, 8}, {0, 1, 2, 3, 4}, {1, 2, 4, 8}, {3}};

// Two and three limits: none binds, one of them does, all do, only the cheapest plan fits.
const std::vector<std::vector<std::pair<const char*, double>>> kSeveral = {
    {{"average_bits", 0.3}, {"bops", 0.3}},
    {{"bytes", 0.9}, {"bops", 0.2}},
    {{"average_bits", 0.4}, {"bytes", 0.35}, {"bops", 0.45}},
    {{"average_bits", 1.0}, {"bytes", 1.0}, {"bops", 0.0}},
};

// Runs `check(problem, options)` for every allocator and mode over random problems and budgets.
template <typename Check>
void ForEveryAllocator(int units, const Check& check) {
  for (const Allocator& allocator : Allocators()) {
    const bool modes = std::string(allocator.name) == "quantile-inform";
    for (const std::string& mode :
         modes ? std::vector<std::string>{"information", "rank"} : std::vector<std::string>{"information"}) {
      for (std::uint64_t seed = 1; seed <= 4; ++seed) {
        RandomStream stream(seed, "test/contract");
        for (const auto& widths : kWidths) {
          const AllocationProblem problem = RandomProblem(stream, units, widths, seed % 2 == 0 ? 2.0 : 0.0);
          for (const Resource& resource : LayerResources()) {
            for (const double share : {0.0, 0.1, 0.35, 0.8, 1.0}) {
              AllocateOptions options = Options(allocator.name, problem, BudgetAt(problem, resource, share));
              options.mode = mode;
              CAPTURE(allocator.name, mode, seed, widths, share, std::string(resource.name));
              check(problem, options);
            }
          }
          for (const auto& shares : kSeveral) {
            AllocateOptions options = Options(allocator.name, problem, BudgetOf(problem, shares));
            options.mode = mode;
            CAPTURE(allocator.name, mode, seed, widths, BudgetText(options.budget));
            check(problem, options);
          }
        }
      }
    }
  }
}

std::map<std::string, int> BitsByName(const AllocationProblem& problem, const Allocation& answer) {
  std::map<std::string, int> result;
  for (std::size_t u = 0; u < problem.units.size(); ++u) result[problem.units[u].name] = answer.bits[u];
  return result;
}

std::string MessageOf(const AllocationProblem& problem, const AllocateOptions& options, ErrorKind kind) {
  try {
    (void)Allocate(problem, options, 1);
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    return error.what();
  }
  FAIL("no error");
  return "";
}

}  // namespace

TEST_CASE("every allocator stays within the budget, uses allowed widths and states the true cost and rise") {
  ForEveryAllocator(12, [](const AllocationProblem& problem, const AllocateOptions& options) {
    const Allocation answer = Allocate(problem, options, 1);
    REQUIRE(answer.bits.size() == problem.units.size());
    const std::vector<Limit>& limits = options.budget.limits;
    std::vector<std::int64_t> cost(limits.size(), 0);
    double rise = 0.0;
    for (std::size_t u = 0; u < problem.units.size(); ++u) {
      const auto found = std::find(problem.widths.begin(), problem.widths.end(), answer.bits[u]);
      REQUIRE(found != problem.widths.end());
      for (std::size_t r = 0; r < limits.size(); ++r) {
        cost[r] += Cost(problem.units[u], answer.bits[u], limits[r].resource);
      }
      rise += problem.loss_rise[u][static_cast<std::size_t>(found - problem.widths.begin())];
    }
    for (std::size_t r = 0; r < limits.size(); ++r) CHECK(cost[r] <= Capacity(problem, limits[r]));
    CHECK(answer.cost == cost);
    CHECK(answer.predicted_loss_rise == Approx(rise));
    if (answer.has_bound) CHECK(answer.lower_bound <= answer.predicted_loss_rise);
    if (answer.has_bound) CHECK(answer.shadow_prices.size() == limits.size());
    CHECK(answer.has_bound == (answer.optimality_gap() >= 0.0));
  });
}

TEST_CASE("every allocator gives the same answer for the same seed") {
  ForEveryAllocator(9, [](const AllocationProblem& problem, const AllocateOptions& options) {
    CHECK(Allocate(problem, options, 5).bits == Allocate(problem, options, 5).bits);
  });
}

TEST_CASE("the order of the units does not matter to any allocator, also when units are alike") {
  ForEveryAllocator(8, [](const AllocationProblem& original, const AllocateOptions& given) {
    AllocationProblem problem = original;
    for (int u : {1, 2, 5}) {  // four units that differ in their names only
      const std::string name = problem.units[u].name;
      problem.units[u] = problem.units[0];
      problem.units[u].name = name;
      problem.loss_rise[u] = problem.loss_rise[0];
    }
    AllocateOptions options = given;
    if (given.budget.limits.size() == 1) {
      options.budget = BudgetAt(problem, given.budget.limits[0].resource, 0.37);
    } else {
      std::vector<std::pair<const char*, double>> shares;
      for (const Limit& limit : given.budget.limits) shares.emplace_back(limit.resource.get().name, 0.37);
      options.budget = BudgetOf(problem, shares);
    }
    const Allocation answer = Allocate(problem, options, 1);
    AllocationProblem shuffled;
    shuffled.widths = problem.widths;
    for (const auto u : RandomStream(1, "test/shuffle").Permutation(static_cast<std::int64_t>(problem.units.size()))) {
      shuffled.units.push_back(problem.units[u]);
      shuffled.loss_rise.push_back(problem.loss_rise[u]);
    }
    const Allocation other = Allocate(shuffled, options, 1);
    CHECK(BitsByName(problem, answer) == BitsByName(shuffled, other));
    CHECK(answer.predicted_loss_rise == other.predicted_loss_rise);
  });
}

TEST_CASE("no allocator beats the plan that trying everything finds") {
  ForEveryAllocator(4, [](const AllocationProblem& problem, const AllocateOptions& options) {
    const double best = Exhaustive(problem, options.budget);
    const Allocation answer = Allocate(problem, options, 1);
    CHECK(answer.predicted_loss_rise >= best * (1.0 - 1e-9));
    if (answer.has_bound) CHECK(answer.lower_bound <= best * (1.0 + 1e-9));
    if (answer.has_bound && answer.optimality_gap() == 0.0) CHECK(answer.predicted_loss_rise == Approx(best));
    if (options.allocator == "exact") CHECK(answer.optimality_gap() == 0.0);
  });
}

TEST_CASE("with room for the widest width everywhere no allocator gives less") {
  for (const Allocator& allocator : Allocators()) {
    if (std::string(allocator.name) == "exact") continue;  // takes the cheaper of two widths with equal rise
    RandomStream stream(3, "test/widest");
    const AllocationProblem problem = RandomProblem(stream, 6, {1, 2, 4, 8});
    const Allocation answer = Allocate(problem, Options(allocator.name, problem, {AverageBits(), 8.0}), 1);
    CHECK(answer.bits == std::vector<int>(6, 8));
  }
}

TEST_CASE("a bigger budget never predicts a worse loss for an allocator that proves its answer") {
  RandomStream stream(11, "test/monotone");
  const AllocationProblem problem = RandomProblem(stream, 30, {1, 2, 3, 4, 5, 6, 7, 8}, 1.5);
  for (const Resource& resource : LayerResources()) {
    double previous = std::numeric_limits<double>::infinity();
    for (double share = 0.0; share <= 1.0; share += 0.02) {
      const Allocation answer = Allocate(problem, Options("exact", problem, BudgetAt(problem, resource, share)), 1);
      REQUIRE(answer.optimality_gap() == 0.0);
      CHECK(answer.predicted_loss_rise <= previous);
      previous = answer.predicted_loss_rise;
    }
  }
}

TEST_CASE("every allocator refuses a budget below the cheapest plan with the nearest feasible budget and what blocks") {
  for (const Allocator& allocator : Allocators()) {
    for (const Resource& resource : LayerResources()) {
      RandomStream stream(4, "test/infeasible");
      const AllocationProblem problem = RandomProblem(stream, 6, {1, 2, 4});
      AllocateOptions options = Options(allocator.name, problem, BudgetAt(problem, resource, 0.0));
      CHECK(Allocate(problem, options, 1).bits == std::vector<int>(6, 1));
      double& value = options.budget.limits[0].value;
      value = resource.per_weight ? 0.9999 : value - 1;
      const std::string message = MessageOf(problem, options, ErrorKind::kInfeasible);
      CAPTURE(message);
      const auto largest =
          std::max_element(problem.units.begin(), problem.units.end(),
                           [&](const Unit& a, const Unit& b) { return Cost(a, 1, resource) < Cost(b, 1, resource); });
      CHECK_THAT(message, ContainsSubstring("are " + largest->name + " (" + Counted(largest->weights, "weight")));
      CHECK_THAT(message, ContainsSubstring("and 3 more"));
      const bool timed = resource.kind == ResourceKind::kTimed;  // narrow weights may take longer
      CHECK_THAT(message, ContainsSubstring(timed ? "other widths" : "narrower widths"));
      CHECK(message.find('\n') == std::string::npos);
      value = std::stod(message.substr(message.rfind(' ')));  // the figure it names is feasible
      CHECK_NOTHROW(Allocate(problem, options, 1));
    }
  }
}

TEST_CASE("of several limits every one that cannot be met is named, and no other") {
  RandomStream stream(4, "test/infeasible");
  const AllocationProblem problem = RandomProblem(stream, 6, {2, 4});
  for (const Allocator& allocator : Allocators()) {
    AllocateOptions options = Options(allocator.name, problem, {});
    options.budget = BudgetOf(problem, {{"average_bits", 0.5}, {"bytes", 0.0}, {"bops", 0.5}});
    CHECK_NOTHROW(Allocate(problem, options, 1));
    options.budget.Set(StoredBytes(), 7.0);
    const std::string one = MessageOf(problem, options, ErrorKind::kInfeasible);
    CHECK_THAT(one, ContainsSubstring("budget 7 bytes cannot be met") && !ContainsSubstring("bit operations") &&
                        !ContainsSubstring("average"));
    options.budget.Set(FindResource("bops"), 9.0);
    const std::string two = MessageOf(problem, options, ErrorKind::kInfeasible);
    CHECK_THAT(two,
               ContainsSubstring("budget 7 bytes") && ContainsSubstring("; budget 9 bit operations cannot be met"));
    CHECK(two.find('\n') == std::string::npos);
  }
}

TEST_CASE("uniform takes the widest width that every limit allows, quantile-inform stops at the first that binds") {
  RandomStream stream(9, "test/first-limit");
  const AllocationProblem problem = RandomProblem(stream, 10, {1, 2, 3, 4, 5, 6, 7, 8});
  const auto bits = [&](const char* allocator, const Budget& budget) {
    return Allocate(problem, Options(allocator, problem, budget), 1).bits;
  };
  const Budget four(AverageBits(), 4.0), two(AverageBits(), 2.0);
  Budget both = four;  // as many bit operations as two bits everywhere
  double bops = 0.0;
  for (const Unit& unit : problem.units) bops += static_cast<double>(Cost(unit, 2, FindResource("bops")));
  both.Set(FindResource("bops"), bops);
  CHECK(bits("uniform", four) == std::vector<int>(10, 4));
  CHECK(bits("uniform", both) == std::vector<int>(10, 2));
  Budget loose = two;
  loose.Set(FindResource("bops"), 1e15);  // a limit that never binds changes nothing
  for (const char* same :
       {"uniform", "random", "greedy", "quantile-inform", "bayes-bits-from-variance", "nncf", "exact", "relaxed"}) {
    CAPTURE(same);
    CHECK(bits(same, loose) == bits(same, two));
  }
}

TEST_CASE("pins are paid for in every limit, and what a pin costs counts all of them") {
  RandomStream stream(12, "test/pins-several");
  const AllocationProblem problem = RandomProblem(stream, 6, {1, 2, 4, 8});
  AllocateOptions options = Options("exact", problem, BudgetOf(problem, {{"average_bits", 0.6}, {"bops", 0.5}}));
  const Allocation free = Allocate(problem, options, 1);
  options.pins = {{problem.units[2].name, free.bits[2] == 1 ? 2 : 1}};
  const Allocation pinned = Allocate(problem, options, 1);
  CHECK(pinned.bits[2] == options.pins[0].bits);
  for (std::size_t r = 0; r < 2; ++r) CHECK(pinned.cost[r] <= Capacity(problem, options.budget.limits[r]));
  const auto costs = PinCosts(problem, options);
  REQUIRE((costs.size() == 1 && costs[0].loss_rise));
  CHECK(*costs[0].loss_rise == Approx(pinned.predicted_loss_rise - free.predicted_loss_rise).margin(1e-12));
  CHECK(*costs[0].loss_rise > 0.0);
  int met = 0;
  for (const Unit& unit : problem.units) {  // a dear pin leaves less of either limit
    for (int tenth = -9; tenth <= 9; ++tenth) {
      const double share = 0.1 * std::abs(tenth);
      options.budget =
          BudgetOf(problem, {{"average_bits", tenth > 0 ? 1.0 : share}, {"bops", tenth > 0 ? share : 1.0}});
      options.pins = {{unit.name, 8}};
      try {
        const Allocation answer = Allocate(problem, options, 1);
        for (std::size_t r = 0; r < 2; ++r) CHECK(answer.cost[r] <= Capacity(problem, options.budget.limits[r]));
        ++met;
      } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::kInfeasible);
      }
    }
  }
  CHECK(met > 50);
  options.budget = BudgetOf(problem, {{"average_bits", 0.6}, {"bops", 0.5}});
  options.pins = {{"*", 8}};
  CHECK_THAT(MessageOf(problem, options, ErrorKind::kInfeasible),
             ContainsSubstring("average bits cannot be met") && ContainsSubstring("bit operations cannot be met"));
}

TEST_CASE("a certificate does not advise narrower widths when pruning is allowed already") {
  RandomStream stream(4, "test/infeasible");
  const AllocationProblem problem = RandomProblem(stream, 2, {0, 1});
  const std::string message =
      MessageOf(problem, Options("exact", problem, {StoredBytes(), 0.0}), ErrorKind::kInfeasible);
  CHECK_THAT(message, !ContainsSubstring("narrower widths"));
}

TEST_CASE("only the widths of allocate.bits are used, and a width that the table lacks is named") {
  RandomStream stream(6, "test/subset");
  const AllocationProblem problem = RandomProblem(stream, 10, {1, 2, 3, 4, 5, 6, 7, 8});
  for (const Allocator& allocator : Allocators()) {
    AllocateOptions options = Options(allocator.name, problem, {AverageBits(), 3.9});
    options.bits = {4, 2};
    for (const int bits : Allocate(problem, options, 1).bits) CHECK((bits == 2 || bits == 4));
  }
  AllocationProblem narrow = RandomProblem(stream, 3, {1, 2, 4});
  AllocateOptions options = Options("exact", narrow, {AverageBits(), 3.0});
  options.bits = {1, 3};
  CHECK_THAT(MessageOf(narrow, options, ErrorKind::kUsage),
             ContainsSubstring("holds 3") && ContainsSubstring("1, 2, 4"));
}

TEST_CASE("an unknown allocator and a senseless budget are usage errors") {
  RandomStream stream(6, "test/usage");
  const AllocationProblem problem = RandomProblem(stream, 3, {1, 2});
  CHECK_THAT(MessageOf(problem, Options("quantil-inform", problem, {}), ErrorKind::kUsage),
             ContainsSubstring("quantil-inform") && ContainsSubstring("uniform"));
  for (const double value : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    CHECK_THAT(MessageOf(problem, Options("exact", problem, {AverageBits(), value}), ErrorKind::kUsage),
               ContainsSubstring("allocate.budget.average_bits"));
  }
}

TEST_CASE("how sure a width is: all replicates agree on a clear table, not on a tie") {
  RandomStream stream(8, "test/confidence");
  AllocationProblem problem = RandomProblem(stream, 6, {1, 2, 4});
  const AllocateOptions options = Options("exact", problem, BudgetAt(problem, AverageBits(), 0.4));
  CHECK(WidthConfidence(problem, {}, options, 1, Allocate(problem, options, 1)).empty());  // nothing to tell it from

  problem.replicates.assign(8, problem.loss_rise);
  for (const double share : WidthConfidence(problem, {}, options, 1, Allocate(problem, options, 1)))
    CHECK(share == 1.0);

  for (const char* sizes : {"uniform", "random"}) {  // nothing but the seed varies
    const AllocateOptions other = Options(sizes, problem, options.budget);
    const auto confidence = WidthConfidence(problem, {}, other, 1, Allocate(problem, other, 1));
    REQUIRE(confidence.size() == 6);
    const double mean = std::accumulate(confidence.begin(), confidence.end(), 0.0) / 6.0;
    if (other.allocator == "uniform") CHECK(mean == 1.0);
    if (other.allocator == "random") {
      CHECK(mean > 0.1);
      CHECK(mean < 1.0);
    }
  }
  for (const char* blind : {"bayes-bits-from-variance", "quantile-inform"}) {  // no coherence to read
    const AllocateOptions other = Options(blind, problem, options.budget);
    CHECK(WidthConfidence(problem, {}, other, 1, Allocate(problem, other, 1)).empty());
  }

  // Two equal layers, bits for one of them; every second replicate prefers the other. A fresh table differs by a pair
  // of replicates: of unlike ones half turn the answer, of like ones none.
  AllocationProblem pair = RandomProblem(stream, 1, {1, 2});
  pair.units.push_back(pair.units[0]);
  pair.units[1].name = "twin";
  pair.loss_rise = {{1.0, 0.1}, {0.9, 0.1}};
  for (int r = 0; r < 8; ++r) pair.replicates.push_back({{r % 2 == 0 ? 1.0 : 0.5, 0.1}, {0.9, 0.1}});
  const AllocateOptions half = Options("exact", pair, {AverageBits(), 1.5});
  const Allocation answer = Allocate(pair, half, 1);
  CHECK(answer.bits == std::vector<int>{2, 1});
  const auto turned = WidthConfidence(pair, {}, half, 1, answer);
  CHECK(turned[0] == turned[1]);
  CHECK((turned[0] > 0.65 && turned[0] < 0.8));
  // The same scatter further from a tie: wide repetitions still turn it, most do not.
  pair.loss_rise = {{1.0, 0.1}, {0.3, 0.1}};
  for (auto& replicate : pair.replicates) replicate[1][0] = 0.3;
  const auto rarely = WidthConfidence(pair, {}, half, 1, answer);
  CHECK((rarely[0] > 0.8 && rarely[0] < 1.0));
  pair.loss_rise = {{1.0, 0.1}, {0.9, 0.1}};

  // Two networks with two seeds each, of which one network holds the second layer for the more sensitive one.
  const std::vector<std::vector<double>> same = {{1.0, 1.0}, {1.0, 1.0}}, none(2);
  std::vector<PosteriorDraw> draws(4, {same, none, none});
  draws[1].rise = draws[3].rise = {{1.0, 1.0}, {2.0, 1.0}};
  pair.replicates.assign(8, pair.loss_rise);
  CHECK(WidthConfidence(pair, draws, half, 1, answer) == std::vector<double>{0.5, 0.5});
  pair.replicates.clear();  // networks alone
  CHECK(WidthConfidence(pair, draws, half, 1, answer) == std::vector<double>{0.5, 0.5});
  // Seeds instead: one says a little more, one a little less; their difference goes either way.
  draws.assign(4, {same, none, none});
  draws[0].rise = draws[1].rise = {{1.0, 1.0}, {1.5, 1.0}};
  draws[2].rise = draws[3].rise = {{1.0, 1.0}, {1.0 / 1.5, 1.0}};
  CHECK(WidthConfidence(pair, draws, half, 1, answer) == std::vector<double>{0.5, 0.5});
}

TEST_CASE("how sure a width is that follows a posterior: other networks have other scores") {
  AllocationProblem pair;
  pair.widths = {1, 2};
  for (const double score : {3.0, 2.0}) {
    Unit unit;
    unit.name = score > 2.5 ? "first" : "second";
    unit.weights = 100;
    unit.scales = 1;
    unit.score_percentiles.assign(kPercentiles, score);
    unit.log_sigma_percentiles.assign(kPercentiles, -score);
    pair.units.push_back(unit);
    pair.loss_rise.push_back({1.0, 0.1});
  }
  const std::vector<std::vector<double>> ones = {{1.0, 1.0}, {1.0, 1.0}};
  const auto shifted = [&](double bits) {
    const std::vector<std::vector<double>> up = {{}, std::vector<double>(kPercentiles, bits)};
    const std::vector<std::vector<double>> down = {{}, std::vector<double>(kPercentiles, -bits)};
    return PosteriorDraw{ones, up, down};
  };
  for (const char* mode : {"information", "rank"}) {
    AllocateOptions options = Options("quantile-inform", pair, {AverageBits(), 1.5});
    options.mode = mode;
    options.guard = false;
    const Allocation answer = Allocate(pair, options, 1);
    INFO(mode);
    REQUIRE(answer.bits == std::vector<int>{2, 1});
    CHECK(WidthConfidence(pair, {shifted(0.5), shifted(-1.0)}, options, 1, answer) == std::vector<double>{1.0, 1.0});
    CHECK(WidthConfidence(pair, {shifted(0.5), shifted(1.5)}, options, 1, answer) == std::vector<double>{0.5, 0.5});
  }
}
