// The contract of an allocator: (problem, budget, options, seed, oracle) -> allocation.
//
// Laws that every registered allocator obeys (tests/allocators/contract_test.cpp):
//   the cost is within every limit of the budget; the same seed gives the same answer; the order of the units does not
//   matter; a budget below the cheapest plan is Error(kInfeasible) with the nearest feasible budget and the blocking
//   layers.
// Adding one: a file in src/allocators with one function, its declaration and its line in src/allocators/list.cpp.
//
// Example: the widths of two layers from a table of what each width costs in loss.
//
//   #include <bitplan/allocators/allocator.h>
//   bitplan::AllocationProblem problem;
//   problem.widths = {2, 4, 8};
//   problem.units.resize(2);
//   problem.units[0].name = "conv1";
//   problem.units[0].weights = 500;
//   problem.units[1].name = "fc";
//   problem.units[1].weights = 4000;
//   problem.loss_rise = {{0.40, 0.02, 0.00}, {0.30, 0.05, 0.01}};  // nats per sample, [units][widths]
//   bitplan::AllocateOptions options;
//   options.allocator = "exact";
//   options.bits = problem.widths;
//   options.budget = {bitplan::AverageBits(), 4.5};
//   const bitplan::Allocation plan = bitplan::Allocate(problem, options, /*seed=*/1);
//   assert((plan.bits == std::vector<int>{8, 4}));
//   assert(plan.optimality_gap() == 0.0);
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/budget.h"
#include "bitplan/core/likelihood_oracle.h"
#include "bitplan/core/options.h"
#include "bitplan/core/problem.h"
#include "bitplan/core/progress.h"

namespace bitplan {

struct Allocation {
  std::vector<int> bits{};  // one per unit
  std::vector<std::int64_t>
      cost{};  // [limits of the budget] in the limit's measure, see Cost(); excluded layers are free
  double predicted_loss_rise = 0.0;  // sum of the table's entries, nats per sample
  double lower_bound = 0.0;          // no plan within the budget is predicted below it; = the rise when proven optimal
  bool has_bound = false;            // false: the allocator states no bound
  // [limits of the budget] nats that one more weight bit (or byte) is worth, 0 where the limit does not bind; empty
  // without a bound.
  std::vector<double> shadow_prices{};
  std::string note;  // one line for the report, or empty
  // How sure the plan is: the probability of every width for every unit, [units][widths], columns those of
  // options.bits ascending. Empty for allocators without probabilities; the row of a layer that is excluded, or pinned
  // to a width that is not in options.bits, is empty.
  std::vector<std::vector<double>> width_probabilities{};

  // (rise - bound) / max(rise, tiny), or -1 without a bound.
  [[nodiscard]] double optimality_gap() const;
};

// What an allocator is given. Pins, groups and exclusions are taken out of the problem before (core/constraints.h).
struct AllocatorInputs {
  const AllocationProblem& problem;  // at least one unit; a plan within the budget exists
  const Budget& budget;
  const AllocateOptions& options;  // of the widths only those of the problem count
  std::uint64_t seed = 1;
  LikelihoodOracle* oracle = nullptr;  // with the units and widths of `problem`; null when the caller has none
  ProgressSink& progress;
};

// What of a table an allocator's widths hang on: the loss rises themselves, the coherence behind them, the scores of a
// posterior alone, or no more than the sizes of the layers.
enum class AllocatorReads { kLossRise, kCoherence, kScores, kSizes };

struct Allocator {
  const char* name;
  const char* description;  // one line
  Allocation (*allocate)(const AllocatorInputs& inputs);
  // Sensitivity metric whose table this allocator is defined by; "": the metric of the recipe.
  const char* metric = "";
  bool needs_posterior = false;  // reads Unit::score_percentiles
  bool needs_oracle = false;     // learns from the likelihood; without an oracle its note says what it did instead
  bool random = false;           // the answer depends on the seed
  bool baseline = false;         // stands for another method: the guard leaves its answer alone
  bool needs_widths = false;     // reads the widths as an ordered axis; refuses choices of another kind (choices.h)
  AllocatorReads reads = AllocatorReads::kLossRise;
  bool any_cost = false;                  // takes costs that fall with the width too
  std::vector<const char*> options = {};  // recipe keys that this allocator alone looks at
};

// Every allocator, in the order of the list.
[[nodiscard]] const std::vector<Allocator>& Allocators();

// Every allocator with what it does, reads and can be told: `bitplan help allocators`.
[[nodiscard]] std::string AllocatorsHelp();

// Error(kUsage) with the known names and the nearest one.
[[nodiscard]] const Allocator& FindAllocator(const std::string& name);

// Everything that Allocate refuses before it calls the allocator; the rises may still be zeros. So a budget that cannot
// be met is known as soon as the layers are.
void CheckSolvable(const AllocationProblem& problem, const AllocateOptions& options);

// Looks the allocator up, takes pins, groups and exclusions out of the problem, checks problem and budget (kInfeasible
// with a certificate), runs the allocator on what is left and checks its answer. The allocator sees the columns of the
// table that options.bits asks for (kUsage when the table lacks one) and the units in the order of their names, so that
// no tie depends on the order in which a network lists its layers.
//
// A limit on what widths of weights do not change (ResourceKind::kPeak) is not seen by allocators; its cost in the
// answer is 0. Where that is the only limit, nothing keeps a layer from its widest width. Where a cost falls with the
// width (ResourceKind::kTimed may), an allocator that does not take that is Error(kUsage).
//
// Guard (options.guard): when the allocator's plan has a higher predicted loss rise than one width for all free units
// within the same limits, the answer is that uniform plan, and the note says so. Pins hold for both. Baselines are
// returned as they are.
//
// `oracle`: the likelihood with the units and widths of `problem`, or null.
[[nodiscard]] Allocation Allocate(const AllocationProblem& problem, const AllocateOptions& options, std::uint64_t seed,
                                  LikelihoodOracle* oracle, ProgressSink& progress);
[[nodiscard]] Allocation Allocate(const AllocationProblem& problem, const AllocateOptions& options, std::uint64_t seed);

// What a pin costs: the least predicted loss rise with all pins minus the least without this one, both by the exact
// solver, nats per sample. Empty when no plan fits the budget without the pin. Negative when the pin grants a width
// that options.bits does not.
struct PinCost {
  Pin pin;
  std::optional<double> loss_rise;
};
// One per entry of options.pins, in that order. Error(kInfeasible) when no plan fits with all pins.
[[nodiscard]] std::vector<PinCost> PinCosts(const AllocationProblem& problem, const AllocateOptions& options);

// How sure every width of `answer` is, [units] 0..1: the share of 128 repetitions with fresh calibration data, another
// network from the posterior and another seed in which the allocator gives the unit the same width. Fresh data move the
// table by the ratio of two of its replicates and the scores by the difference of two seeds of a draw, widened with
// heavy tails so that of widths called 90 % sure about 90 % come again (`bitplan sure`; src/allocators/confidence.cpp).
// For an allocator that learns from an oracle: the probability that it states. For one that reads sizes only 32 seeds
// are all that varies. Empty when the widths depend on something of which there is nothing to repeat with: loss rises
// and coherence without two replicates or draws, scores without draws.
[[nodiscard]] std::vector<double> WidthConfidence(const AllocationProblem& problem,
                                                  const std::vector<PosteriorDraw>& draws,
                                                  const AllocateOptions& options, std::uint64_t seed,
                                                  const Allocation& answer);

}  // namespace bitplan
