#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "allocators/knapsack.h"
#include "allocators/problems.h"
#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

using Classes = std::vector<std::vector<KnapsackItem>>;

double Exhaustive(const Classes& classes, std::int64_t capacity, std::size_t c = 0) {
  if (c == classes.size()) return capacity >= 0 ? 0.0 : std::numeric_limits<double>::infinity();
  double best = std::numeric_limits<double>::infinity();
  for (const KnapsackItem& item : classes[c]) {
    best = std::min(best, item.value + Exhaustive(classes, capacity - item.cost, c + 1));
  }
  return best;
}

// Reference for larger instances: the least value for every capacity, class by class.
double ByCapacity(const Classes& classes, std::int64_t capacity) {
  std::vector<double> least(static_cast<std::size_t>(capacity) + 1, 0.0);
  for (const auto& items : classes) {
    std::vector<double> next(least.size(), std::numeric_limits<double>::infinity());
    for (const KnapsackItem& item : items) {
      for (std::size_t left = static_cast<std::size_t>(item.cost); left < next.size(); ++left) {
        next[left] = std::min(next[left], least[left - static_cast<std::size_t>(item.cost)] + item.value);
      }
    }
    least = std::move(next);
  }
  return least.back();
}

void CheckConsistent(const Classes& classes, std::int64_t capacity, const KnapsackSolution& solution) {
  std::int64_t cost = 0;
  double value = 0.0;
  REQUIRE(solution.chosen.size() == classes.size());
  for (std::size_t c = 0; c < classes.size(); ++c) {
    cost += classes[c].at(solution.chosen[c]).cost;
    value += classes[c][solution.chosen[c]].value;
  }
  CHECK(cost <= capacity);
  CHECK(solution.value == Approx(value));
}

std::int64_t Cheapest(const Classes& classes) {
  std::int64_t cost = 0;
  for (const auto& items : classes) {
    cost += std::min_element(items.begin(), items.end(), [](auto& a, auto& b) { return a.cost < b.cost; })->cost;
  }
  return cost;
}

}  // namespace

TEST_CASE("the knapsack solver finds the optimum of random instances of every kind") {
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    RandomStream stream(seed, "test/knapsack");
    const bool integers = seed % 3 == 0;          // many ties
    const std::int64_t scale = seed % 2 ? 7 : 1;  // a common divisor
    Classes classes(1 + stream.Index(6));
    for (auto& items : classes) {
      items.resize(1 + stream.Index(6));
      for (KnapsackItem& item : items) {
        item.cost = scale * static_cast<std::int64_t>(stream.Index(seed % 5 == 0 ? 4 : 40));
        item.value = integers ? static_cast<double>(stream.Index(6)) : stream.Uniform(-3.0, 10.0);
      }
    }
    const std::int64_t capacity = Cheapest(classes) + static_cast<std::int64_t>(stream.Index(100));
    const KnapsackSolution solution = SolveKnapsack(classes, capacity);
    CAPTURE(seed);
    CheckConsistent(classes, capacity, solution);
    CHECK(solution.optimal);
    CHECK(solution.value == Approx(Exhaustive(classes, capacity)).margin(1e-9));
    CHECK(solution.lower_bound == solution.value);
    CHECK(solution.shadow_price >= 0.0);
  }
}

TEST_CASE("the knapsack solver finds the optimum of larger instances, also where value follows cost closely") {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomStream stream(seed, "test/knapsack-larger");
    const double noise = std::vector<double>{10.0, 1.0, 0.01}[seed % 3];  // uncorrelated ... strongly correlated
    const std::uint64_t largest = seed % 2 ? 6 : 60;                      // many and few classes of one size
    Classes classes(10 + stream.Index(50));
    std::int64_t dearest = 0;
    for (auto& items : classes) {
      const std::uint64_t size = 1 + stream.Index(largest);
      for (std::uint64_t width = 0; width < 6; ++width) {
        const double trend =
            seed % 4 < 2 ? -static_cast<double>(width) : 4.0 * std::exp2(-2.0 * static_cast<double>(width));
        items.push_back({static_cast<std::int64_t>(size * width),
                         static_cast<double>(size) * trend + noise * stream.Uniform(0.0, 3.0)});
      }
      dearest += static_cast<std::int64_t>(5 * size);
    }
    const auto capacity = static_cast<std::int64_t>(stream.Uniform() * static_cast<double>(dearest));
    const KnapsackSolution solution = SolveKnapsack(classes, capacity);
    CAPTURE(seed);
    CheckConsistent(classes, capacity, solution);
    CHECK(solution.optimal);
    CHECK(solution.value == Approx(ByCapacity(classes, capacity)).epsilon(1e-9));
  }
}

TEST_CASE("a subset sum, where every multiplier is alike, is solved too") {
  Classes classes;
  for (const std::int64_t size : {31, 41, 59, 26, 53, 58, 97, 93, 23, 84}) {
    classes.push_back({{0, 0.0}, {size, -static_cast<double>(size)}});
  }
  for (std::int64_t capacity = 0; capacity < 600; capacity += 13) {
    const KnapsackSolution solution = SolveKnapsack(classes, capacity);
    CHECK(solution.optimal);
    CHECK(solution.value == Exhaustive(classes, capacity));
  }
}

TEST_CASE("when the state limit stops the search, the bound still holds and the gap is reported") {
  int stopped = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    RandomStream stream(seed, "test/limit");
    const AllocationProblem problem = RandomProblem(stream, 60, {1, 2, 3, 4, 5, 6, 7, 8}, 1.0);
    Classes classes;
    for (std::size_t u = 0; u < problem.units.size(); ++u) {
      classes.emplace_back();
      for (std::size_t k = 0; k < problem.widths.size(); ++k) {
        classes.back().push_back({problem.units[u].weights * problem.widths[k], problem.loss_rise[u][k]});
      }
    }
    const std::int64_t capacity = 3 * problem.total_weights();
    const KnapsackSolution full = SolveKnapsack(classes, capacity);
    REQUIRE(full.optimal);
    for (const std::int64_t limit : {0, 10, 100, 1000}) {
      const KnapsackSolution partial = SolveKnapsack(classes, capacity, limit);
      CheckConsistent(classes, capacity, partial);
      CHECK(partial.states <= limit);
      CHECK(partial.lower_bound <= full.value * (1 + 1e-12));
      CHECK(partial.value >= full.value * (1 - 1e-12));
      CHECK(partial.optimal == (partial.lower_bound == partial.value));
      stopped += !partial.optimal;
    }
  }
  CHECK(stopped > 40);
}

TEST_CASE("the knapsack solver refuses what has no answer") {
  CHECK_THROWS_AS(SolveKnapsack({{{5, 1.0}}}, 4), Error);
  CHECK_THROWS_AS(SolveKnapsack({{}}, 4), Error);
  CHECK(SolveKnapsack({}, 0).value == 0.0);
}

TEST_CASE("the shadow price says what more budget is worth") {
  RandomStream stream(5, "test/price");
  const AllocationProblem problem = RandomProblem(stream, 400, {1, 2, 3, 4, 5, 6, 7, 8});
  const auto rise = [&](double bits) { return Allocate(problem, Options("exact", problem, {AverageBits(), bits}), 1); };
  const Allocation here = rise(3.0);
  const double more_bits = 0.01 * static_cast<double>(problem.total_weights());
  const double gain = here.predicted_loss_rise - rise(3.01).predicted_loss_rise;
  CHECK(gain / more_bits == Approx(here.shadow_prices.at(0)).epsilon(0.2));
  CHECK(rise(8.0).shadow_prices.at(0) == 0.0);
}

TEST_CASE("exact is proven optimal on a thousand units with nine widths, for both budgets") {
  RandomStream stream(1, "test/large");
  const AllocationProblem problem = RandomProblem(stream, 1000, {0, 1, 2, 3, 4, 5, 6, 7, 8}, 1.0);
  for (const Resource& resource : LayerResources()) {
    for (const double share : {0.05, 0.15, 0.4, 0.7}) {
      const Allocation answer = Allocate(problem, Options("exact", problem, BudgetAt(problem, resource, share)), 1);
      CAPTURE(share, answer.note);
      CHECK(answer.optimality_gap() == 0.0);
    }
  }
}

TEST_CASE("exact finds the known optimum of every instance") {
  int instances = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(BITPLAN_SOURCE_DIR) + "/tests/allocators/instances")) {
    if (entry.path().extension() != ".json") continue;
    ++instances;
    CAPTURE(entry.path().filename().string());
    const nlohmann::json json = nlohmann::json::parse(std::ifstream(entry.path()));
    AllocationProblem problem;
    json.at("widths").get_to(problem.widths);
    for (const auto& unit : json.at("units")) {
      problem.units.emplace_back();
      unit.at("name").get_to(problem.units.back().name);
      unit.at("weights").get_to(problem.units.back().weights);
      unit.at("scales").get_to(problem.units.back().scales);
      problem.loss_rise.push_back(unit.at("loss_rise").get<std::vector<double>>());
    }
    const bool bytes = json.at("budget").contains("bytes");
    const Budget budget{bytes ? StoredBytes() : AverageBits(),
                        json["budget"].at(bytes ? "bytes" : "average_bits").get<double>()};
    const AllocateOptions options = Options("exact", problem, budget);
    if (json.contains("infeasible")) {
      for (const auto& words : json["infeasible"]) {
        CHECK_THROWS_WITH(Allocate(problem, options, 1), ContainsSubstring(words.get<std::string>()));
      }
      continue;
    }
    const Allocation answer = Allocate(problem, options, 1);
    CHECK(answer.optimality_gap() == 0.0);
    CHECK(answer.predicted_loss_rise == Approx(json["optimum"].at("loss_rise").get<double>()));
    CHECK(testing::Exhaustive(problem, budget) == Approx(answer.predicted_loss_rise));
    for (std::size_t u = 0; u < problem.units.size(); ++u) {
      CHECK(answer.bits[u] == json["optimum"].at("bits").at(problem.units[u].name).get<int>());
    }
  }
  CHECK(instances >= 7);
}
