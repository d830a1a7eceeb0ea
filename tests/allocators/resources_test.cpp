// Resources that do not follow from sizes and widths: times of a table, and the peak of activations.
#include <cmath>
#include <limits>
#include <utility>

#include "allocators/problems.h"
#include "bitplan/allocators/choices.h"
#include "bitplan/core/activation_memory.h"
#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

// Times as a runtime may have them: four bits cost unpacking.
AllocationProblem WithUnpacking(std::uint64_t seed, int units) {
  RandomStream stream(seed, "test/unpacking");
  AllocationProblem problem = RandomProblem(stream, units, {2, 4, 8});
  for (Unit& unit : problem.units) {
    unit.latency.clear();
    for (const int bits : {2, 4, 8}) {
      unit.latency.push_back({.weight_bits = bits,
                              .nanoseconds = static_cast<std::int64_t>(unit.weights * (bits == 4 ? 14 : 8)) +
                                             static_cast<std::int64_t>(stream.Index(100))});
    }
  }
  return problem;
}

std::string LineOf(const AllocationProblem& problem, const AllocateOptions& options, ErrorKind kind) {
  try {
    (void)Allocate(problem, options, 1);
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return error.what();
  }
  return "nothing was refused";
}

// Layers one after another: a step holds what a layer reads and what the next one does, and a residual connection of
// every second layer holds a third one.
struct ChainOfLayers {
  ChoiceProblem problem;
  ActivationTimeline timeline;
  std::vector<int> widths;

  [[nodiscard]] std::vector<int> ActivationsOf(const std::vector<int>& chosen) const {
    std::vector<int> bits;
    for (std::size_t u = 0; u < chosen.size(); ++u) {
      bits.push_back(problem.units[u].choices[static_cast<std::size_t>(chosen[u])].format.activations);
    }
    return bits;
  }
};

ChainOfLayers MakeChain(std::uint64_t seed, int layers, std::vector<int> weights, std::vector<int> activations,
                        double weight_share, double peak_share) {
  RandomStream stream(seed, "test/chain");
  ChainOfLayers chain;
  chain.widths = activations;
  std::vector<std::int64_t> elements;
  for (int l = 0; l < layers; ++l) {
    elements.push_back(64 * (1 + static_cast<std::int64_t>(stream.Index(40))));
    chain.timeline.tensors.push_back(static_cast<std::size_t>(l));
  }
  for (int l = 0; l < layers; ++l) {
    ActivationStep step{.where = std::to_string(l), .float_bytes = 512};
    for (int near = l; near < std::min(layers, l + (l % 2 == 0 ? 3 : 2)); ++near) {
      step.rounded.push_back({static_cast<std::size_t>(near), elements[static_cast<std::size_t>(near)]});
    }
    chain.timeline.steps.push_back(step);
  }
  std::vector<int> narrow(static_cast<std::size_t>(layers), activations.front()),
      wide(static_cast<std::size_t>(layers), activations.back());
  const auto low = static_cast<double>(PeakActivationBytes(chain.timeline, narrow)),
             high = static_cast<double>(PeakActivationBytes(chain.timeline, wide));
  const auto limit = static_cast<std::int64_t>(low + peak_share * (high - low));
  std::int64_t bits = 0;
  std::vector<std::int64_t> sizes;
  for (int l = 0; l < layers; ++l) {
    sizes.push_back(100 + static_cast<std::int64_t>(stream.Index(4000)));
    bits += sizes.back();
  }
  const double average = weights.front() + weight_share * (weights.back() - weights.front());
  chain.problem.limits.push_back({"average_bits", static_cast<std::int64_t>(average * static_cast<double>(bits))});
  for (const ActivationStep& step : chain.timeline.steps) {
    chain.problem.limits.push_back({"activation_bytes", limit - step.float_bytes, step.float_bytes});
  }
  for (int l = 0; l < layers; ++l) {
    ChoiceUnit unit{.name = "layer" + std::to_string(l), .choices = {}};
    const double one = stream.Uniform(-1.0, 5.0), other = stream.Uniform(-1.0, 5.0);
    for (const int w : weights) {
      for (const int a : activations) {
        Choice choice{.format = {w, a},
                      .loss_rise = std::exp2(2.0 * (one - w)) + std::exp2(2.0 * (other - a)),
                      .cost = {sizes[static_cast<std::size_t>(l)] * w}};
        for (const ActivationStep& step : chain.timeline.steps) {
          std::int64_t cost = 0;
          for (const LiveTensor& live : step.rounded) {
            if (live.tensor == static_cast<std::size_t>(l)) cost += BytesAt(live.elements, a);
          }
          choice.cost.push_back(cost);
        }
        unit.choices.push_back(choice);
      }
    }
    chain.problem.units.push_back(unit);
  }
  return chain;
}

std::int64_t PeakLimit(const ChainOfLayers& chain) {
  return chain.problem.limits.back().capacity + chain.problem.limits.back().base;
}

double BestOfAll(const ChainOfLayers& chain) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<int> chosen(chain.problem.units.size(), 0);
  for (;;) {
    std::int64_t bits = 0;
    double rise = 0.0;
    for (std::size_t u = 0; u < chosen.size(); ++u) {
      const Choice& choice = chain.problem.units[u].choices[static_cast<std::size_t>(chosen[u])];
      bits += choice.cost[0];
      rise += choice.loss_rise;
    }
    if (rise < best && bits <= chain.problem.limits[0].capacity &&
        PeakActivationBytes(chain.timeline, chain.ActivationsOf(chosen)) <= PeakLimit(chain)) {
      best = rise;
    }
    std::size_t u = 0;
    while (u < chosen.size() && ++chosen[u] == static_cast<int>(chain.problem.units[u].choices.size())) chosen[u++] = 0;
    if (u == chosen.size()) return best;
  }
}

}  // namespace

TEST_CASE("exact within a peak of activations is what trying everything finds") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    const ChainOfLayers chain = MakeChain(seed, 4, {2, 4, 8}, {2, 4, 8}, 0.4, 0.1 * static_cast<double>(seed % 6));
    const ChoiceSolution plan = SolveChoices(chain.problem);
    CAPTURE(seed);
    CHECK(plan.proven);
    CHECK(PeakActivationBytes(chain.timeline, chain.ActivationsOf(plan.chosen)) <= PeakLimit(chain));
    CHECK(plan.loss_rise == Approx(BestOfAll(chain)).epsilon(1e-12));
  }
}

TEST_CASE("of a network with a limit for every one of its layers exact finds a plan near its bound") {
  for (const auto& [layers, share] : {std::pair{16, 0.1}, {16, 0.5}, {20, 0.5}}) {
    const ChainOfLayers chain = MakeChain(7, layers, {1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, 4, 6, 8}, 0.35, share);
    const ChoiceSolution plan = SolveChoices(chain.problem, {.state_limit = 20'000'000});
    CAPTURE(layers, share, plan.states);
    CHECK(PeakActivationBytes(chain.timeline, chain.ActivationsOf(plan.chosen)) <= PeakLimit(chain));
    CHECK(plan.gap() < 1e-3);
  }
}

TEST_CASE("within tens of limits that all bind the plan keeps them and the bound is one") {
  const ChainOfLayers chain = MakeChain(7, 54, {1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, 4, 6, 8}, 0.35, 0.1);
  const ChoiceSolution plan = SolveChoices(chain.problem, {.state_limit = 2'000'000});
  CHECK(PeakActivationBytes(chain.timeline, chain.ActivationsOf(plan.chosen)) <= PeakLimit(chain));
  CHECK(plan.has_bound);
  CHECK(plan.lower_bound <= plan.loss_rise);
}

TEST_CASE("a peak that cannot be met with the other limits is one name in one line") {
  ChainOfLayers chain = MakeChain(3, 4, {2, 4}, {2, 4}, 0.0, 0.0);
  for (ChoiceUnit& unit : chain.problem.units) {  // narrow weights only with wide activations
    std::erase_if(unit.choices, [](const Choice& c) { return c.format.weights + c.format.activations < 6; });
  }
  try {
    (void)SolveChoices(chain.problem);
    FAIL("a plan fits");
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.kind() == ErrorKind::kInfeasible);
    CHECK(message.find('\n') == std::string::npos);
    CHECK_THAT(message, ContainsSubstring("activation_bytes at") && ContainsSubstring("goes with the others"));
    CHECK(message.find("activation_bytes") != message.rfind("activation_bytes"));
    // Once among the limits, once with the value that does.
    CHECK(message.find("activation_bytes", message.find("activation_bytes", message.find("activation_bytes") + 1) +
                                               1) == std::string::npos);
  }
}

TEST_CASE("exact takes times that fall with the width, and finds what trying everything finds") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const AllocationProblem problem = WithUnpacking(seed, 5);
    Budget budget = BudgetAt(problem, Latency(), 0.5);
    double fastest = 0.0, slowest = 0.0;
    for (const Unit& unit : problem.units) {
      std::int64_t least = std::numeric_limits<std::int64_t>::max(), most = 0;
      for (const int width : problem.widths) {
        least = std::min(least, Cost(unit, width, Latency()));
        most = std::max(most, Cost(unit, width, Latency()));
      }
      fastest += static_cast<double>(least) / 1000.0;
      slowest += static_cast<double>(most) / 1000.0;
    }
    budget = {Latency(), fastest + 0.2 * (slowest - fastest)};
    if (seed % 2 == 0) budget.Set(AverageBits(), 4.0);
    CAPTURE(seed);
    AllocateOptions options = Options("exact", problem, budget);
    const Allocation answer = Allocate(problem, options, 1);
    CHECK(answer.predicted_loss_rise == Approx(Exhaustive(problem, budget)).epsilon(1e-12));
    for (const char* other : {"lagrangian", "hawq", "uniform"}) {
      options.allocator = other;
      try {
        const Allocation plan = Allocate(problem, options, 1);
        CHECK(plan.predicted_loss_rise >= answer.predicted_loss_rise * (1.0 - 1e-12));
      } catch (const Error& error) {
        CHECK(std::string(other) == "uniform");
        CHECK(error.kind() == ErrorKind::kInfeasible);
      }
    }
  }
}

TEST_CASE("who needs costs that do not fall refuses times that do, in one line that names the layer") {
  const AllocationProblem problem = WithUnpacking(1, 5);
  for (const Allocator& allocator : Allocators()) {
    if (allocator.any_cost) continue;
    CAPTURE(allocator.name);
    CHECK_THAT(LineOf(problem, Options(allocator.name, problem, {Latency(), 1e6}), ErrorKind::kUsage),
               ContainsSubstring("faster at 8 bits than at 4 bits") && ContainsSubstring(allocator.name));
  }
}

TEST_CASE("a layer that is left in float takes its time") {
  RandomStream stream(1, "test/float");
  AllocationProblem problem = RandomProblem(stream, 3, {2, 4, 8});
  for (Unit& unit : problem.units) unit.latency.push_back({.weight_bits = 32, .nanoseconds = 50'000'000});
  AllocateOptions options = Options("exact", problem, {Latency(), 49'000.0});
  CHECK_NOTHROW(Allocate(problem, options, 1));
  options.exclude = {"layer1"};
  CHECK_THAT(LineOf(problem, options, ErrorKind::kInfeasible),
             ContainsSubstring("49000 microseconds of latency cannot be met"));
  options.budget = {Latency(), 60'000.0};
  const Allocation answer = Allocate(problem, options, 1);
  CHECK(answer.cost.at(0) > 50'000'000);
}

TEST_CASE("allocators do not see a limit on the peak of activations, and their answer costs nothing of it") {
  RandomStream stream(2, "test/unseen");
  const AllocationProblem problem = RandomProblem(stream, 6, {1, 2, 4, 8});
  for (const Allocator& allocator : Allocators()) {
    CAPTURE(allocator.name);
    Budget budget = BudgetAt(problem, StoredBytes(), 0.4);
    budget.Set(FindResource("bops"), 1e15);
    const Allocation without = Allocate(problem, Options(allocator.name, problem, budget), 1);
    budget.Set(ActivationMemory(), 100.0);
    const Allocation with = Allocate(problem, Options(allocator.name, problem, budget), 1);
    REQUIRE(with.cost.size() == 3);
    CHECK(with.bits == without.bits);
    CHECK(with.cost[0] == without.cost[0]);
    CHECK(with.cost[2] == 0);
    CHECK_NOTHROW(Allocate(problem, Options(allocator.name, problem, {ActivationMemory(), 100.0}), 1));
  }
  CHECK(Allocate(problem, Options("uniform", problem, {ActivationMemory(), 100.0}), 1).bits == std::vector<int>(6, 8));
}
