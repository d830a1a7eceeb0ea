// Pins, groups, exclusions and the guard: what the user has decided holds for every allocator.
#include "bitplan/core/constraints.h"

#include <algorithm>
#include <cmath>

#include "allocators/problems.h"
#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

const std::vector<int> kFewBits = {1, 2, 3, 4, 6, 8};

AllocationProblem TenLayers() {
  RandomStream stream(5, "test/constraints");
  return RandomProblem(stream, 10, kFewBits);
}

AllocateOptions At(const AllocationProblem& problem, double average_bits, const std::string& allocator = "exact") {
  return Options(allocator, problem, {AverageBits(), average_bits});
}

std::string Complaint(const AllocationProblem& problem, const AllocateOptions& options, ErrorKind kind) {
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

TEST_CASE("a pattern matches whole names, '*' any text and '?' one character") {
  CHECK(MatchesPattern("layer3.0.conv2", "layer3.*"));
  CHECK(MatchesPattern("layer3.0.conv2", "*conv?"));
  CHECK(MatchesPattern("conv1", "conv1"));
  CHECK_FALSE(MatchesPattern("conv10", "conv1"));
  CHECK_FALSE(MatchesPattern("layer3.0.conv2", "layer?"));
  CHECK(MatchesPattern("", "*"));
}

TEST_CASE("pins, groups and exclusions hold in the plan of every allocator, within the budget") {
  const AllocationProblem problem = TenLayers();
  for (const Allocator& allocator : Allocators()) {
    CAPTURE(allocator.name);
    AllocateOptions options = At(problem, 3.0, allocator.name);
    options.pins = {{"layer1", 6}, {"layer2", 1}};
    options.groups = {{"layer3", "layer4"}, {"layer7"}};
    options.exclude = {"layer9"};
    const Allocation answer = Allocate(problem, options, 1);
    CHECK(answer.bits[1] == 6);
    CHECK(answer.bits[2] == 1);
    CHECK(answer.bits[3] == answer.bits[4]);
    CHECK(answer.bits[9] == kFloatBits);
    double spent = 0.0, weights = 0.0;
    for (std::size_t u = 0; u < 9; ++u) {
      spent += static_cast<double>(problem.units[u].weights) * answer.bits[u];
      weights += static_cast<double>(problem.units[u].weights);
    }
    CHECK(spent <= 3.0 * weights + 1e-6);
  }
}

TEST_CASE("the best plan with a pin is the best of all plans that have it") {
  const AllocationProblem problem = TenLayers();
  AllocateOptions options = At(problem, 3.0);
  const Allocation free = Allocate(problem, options, 1);
  for (const int bits : kFewBits) {
    options.pins = {{"layer5", bits}};
    const Allocation pinned = Allocate(problem, options, 1);
    CHECK(pinned.predicted_loss_rise >= free.predicted_loss_rise * (1.0 - 1e-9));
    if (bits == free.bits[5]) CHECK(pinned.predicted_loss_rise == Approx(free.predicted_loss_rise));
  }
}

TEST_CASE("every pin has its price") {
  const AllocationProblem problem = TenLayers();
  AllocateOptions options = At(problem, 3.0);
  const Allocation free = Allocate(problem, options, 1);
  options.pins = {{"layer5", 1}, {"layer6", free.bits[6]}};
  const auto costs = PinCosts(problem, options);
  REQUIRE(costs.size() == 2);
  AllocateOptions without = options;
  without.pins = {options.pins[1]};
  const double expected =
      Allocate(problem, options, 1).predicted_loss_rise - Allocate(problem, without, 1).predicted_loss_rise;
  REQUIRE(costs[0].loss_rise);
  CHECK(*costs[0].loss_rise == Approx(expected));
  CHECK(*costs[0].loss_rise >= 0.0);
}

TEST_CASE("a decision that fits no layer, or contradicts another, is one clear line") {
  const AllocationProblem problem = TenLayers();
  AllocateOptions options = At(problem, 3.0);
  options.pins = {{"layer55", 4}};
  CHECK_THAT(Complaint(problem, options, ErrorKind::kUsage),
             ContainsSubstring("layer55") && ContainsSubstring("layer5"));
  options.pins = {{"layer5", 5}};
  CHECK_THAT(Complaint(problem, options, ErrorKind::kUsage), ContainsSubstring("5"));
  options.pins = {{"layer1", 2}, {"layer2", 4}};
  options.groups = {{"layer1", "layer2"}};
  CHECK_FALSE(Complaint(problem, options, ErrorKind::kUsage).empty());
  options.pins.clear();
  options.groups = {{"layer1", "layer2"}, {"layer2", "layer3"}};
  CHECK_FALSE(Complaint(problem, options, ErrorKind::kUsage).empty());
  options.groups.clear();
  options.pins = {{"*", 8}};
  CHECK_FALSE(Complaint(problem, options, ErrorKind::kInfeasible).empty());
}

TEST_CASE("the guard never lets a plan through that is predicted worse than uniform at the same budget") {
  // Percentiles that lie about the table: quantile-inform follows them to a bad plan.
  AllocationProblem problem = TenLayers();
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    auto& scores = problem.units[u].score_percentiles;
    for (double& score : scores) score = -score;
    std::reverse(scores.begin(), scores.end());
  }
  for (const double bits : {2.0, 3.0, 4.0}) {
    AllocateOptions options = At(problem, bits, "quantile-inform");
    options.guard = false;
    const Allocation misled = Allocate(problem, options, 1);
    options.guard = true;
    const Allocation guarded = Allocate(problem, options, 1);
    const Allocation uniform = Allocate(problem, At(problem, bits, "uniform"), 1);
    REQUIRE(misled.predicted_loss_rise > uniform.predicted_loss_rise);
    CHECK(guarded.predicted_loss_rise <= uniform.predicted_loss_rise);
    CHECK_FALSE(guarded.note.empty());
  }
}

TEST_CASE("a budget that is not used up is explained, and the guard says what it leaves out") {
  AllocationProblem problem = TenLayers();
  for (Unit& unit : problem.units) unit.weights = 1000;
  problem.units[0].weights = 100'000;
  const auto note = [&](const AllocateOptions& options) { return Allocate(problem, options, 1).note; };
  CHECK_THAT(note(At(problem, 20.0)), ContainsSubstring("every free layer has its widest width"));
  // 109 thousand weights, the first layer at 4 bits, its next width 200,000 bits away.
  CHECK_THAT(note(At(problem, 5.0)), ContainsSubstring("too little for the next width of any layer"));
  AllocateOptions pinned = At(problem, 5.0);
  pinned.pins = {{problem.units[0].name, 2}};
  CHECK_THAT(note(pinned), ContainsSubstring("widest width"));
  CHECK_THAT(note(At(problem, 4.0, "greedy")), !ContainsSubstring("budget is left"));
}
