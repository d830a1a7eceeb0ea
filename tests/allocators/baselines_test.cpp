// What each allocator is by its definition, beyond the laws that all obey.
#include <algorithm>

#include "allocators/problems.h"
#include "support/catch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

const std::vector<int> kBits = {1, 2, 3, 4, 5, 6, 7, 8};

AllocationProblem Random(std::uint64_t seed, double disorder = 0.0) {
  RandomStream stream(seed, "test/baselines");
  return RandomProblem(stream, 14, kBits, disorder);
}

Allocation Plan(const std::string& allocator, const AllocationProblem& problem, double share, std::uint64_t seed = 1) {
  AllocateOptions options = Options(allocator, problem, BudgetAt(problem, AverageBits(), share));
  options.guard = false;
  return Allocate(problem, options, seed);
}

}  // namespace

TEST_CASE("integer programs of the peers are the exact optimum of their table") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const AllocationProblem problem = Random(seed, 1.0);
    for (const double share : {0.1, 0.3, 0.6}) {
      const double best = Plan("exact", problem, share).predicted_loss_rise;
      for (const char* name : {"hawq", "mct", "autoround", "modelopt"}) {
        CAPTURE(name, seed, share);
        CHECK(Plan(name, problem, share).predicted_loss_rise == Approx(best));
      }
      for (const char* name : {"lagrangian", "greedy", "relaxed", "nncf", "random", "uniform"}) {
        CAPTURE(name, seed, share);
        CHECK(Plan(name, problem, share).predicted_loss_rise >= best * (1.0 - 1e-9));
      }
    }
  }
}

TEST_CASE("the Lagrangian answer states a true bound close to the optimum") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const AllocationProblem problem = Random(seed, 1.0);
    const Allocation answer = Plan("lagrangian", problem, 0.3), best = Plan("exact", problem, 0.3);
    REQUIRE(answer.has_bound);
    CHECK(answer.lower_bound <= best.predicted_loss_rise * (1.0 + 1e-9));
    CHECK(answer.predicted_loss_rise <= 2.0 * best.predicted_loss_rise);
    CHECK(answer.shadow_prices.at(0) > 0.0);
  }
}

TEST_CASE("relaxed finds the continuous optimum of exact exponentials and rounds it well") {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const AllocationProblem problem = Random(seed);  // D = a 4^-b
    const Allocation answer = Plan("relaxed", problem, 0.4), best = Plan("exact", problem, 0.4);
    CAPTURE(seed, answer.note);
    CHECK(answer.predicted_loss_rise <= 1.2 * best.predicted_loss_rise);
  }
}

TEST_CASE("nncf stops where it first fits: never more than one unit below another kept wider for nothing") {
  const AllocationProblem problem = Random(2);
  const Allocation answer = Plan("nncf", problem, 0.3);
  CHECK(answer.predicted_loss_rise >= Plan("exact", problem, 0.3).predicted_loss_rise);
}

TEST_CASE("random gives different plans for different seeds and spends what fits") {
  const AllocationProblem problem = Random(4);
  const Allocation one = Plan("random", problem, 0.4, 1), two = Plan("random", problem, 0.4, 2);
  CHECK(one.bits != two.bits);
  AllocateOptions options = Options("random", problem, BudgetAt(problem, AverageBits(), 0.4));
  const std::int64_t left = Capacity(problem, options.budget.limits[0]) - one.cost.at(0);
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    if (one.bits[u] < 8) CHECK(problem.units[u].weights > left);  // no single step fits any more
  }
}
