// Choices of any kind within several limits (core/choice.h).
//
//   ChoiceProblem problem = ...;                                    // units x (weight width, activation width), say
//   const ChoiceSolution plan = SolveChoices(problem);              // exact
//   problem.units[u].choices[plan.chosen[u]].format ...
//
// Methods.
//   exact       Lagrangian dual over all multipliers, repair and local search, then branch and bound (src/allocators/
//               choice_search.h). Linked units are part of all of it: the dual takes, for every group, the best part at
//               the multipliers, and the search branches on parts. With one limit and no links: the dynamic program of
//               allocators/knapsack.h.
//   lagrangian  The dual alone, and its plan repaired and filled up: with the dual bound.
//   greedy      From a cheap plan, always the change that lowers the loss rise most per cost; no bound.
//   random      From a cheap plan, changes drawn at random that lower the loss rise and fit; no bound.
//   uniform     One format for all units: of those that every unit has and that fit, the one with the least loss rise.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/budget.h"
#include "bitplan/core/choice.h"

namespace bitplan {

struct ChoiceSolution {
  std::vector<int> chosen;         // one index into the unit's choices per unit
  std::vector<std::int64_t> cost;  // [limits]
  double loss_rise = 0.0;          // sum over the units, nats per sample
  bool has_bound = false;          // exact and lagrangian
  double lower_bound = 0.0;        // no plan within the limits is below it; = loss_rise when proven
  bool proven = false;             // loss_rise is the least there is, to 1e-12 of it
  std::vector<double> prices;      // [limits] multipliers: nats that one more of the limit's measure is worth
  std::int64_t states = 0;         // how much was searched

  // (loss_rise - lower_bound) / |loss_rise|, or -1 without a bound.
  [[nodiscard]] double gap() const;
};

// How much the exact method searches: choices looked at, not time, so that the same problem has the same answer
// everywhere. Raising it proves more; the default is about a second.
inline constexpr std::int64_t kChoiceStates = 100'000'000;

struct ChoiceOptions {
  std::string method = "exact";  // name of an allocator: exact, lagrangian, greedy, random, uniform
  std::uint64_t seed = 1;        // of random
  std::int64_t state_limit = kChoiceStates;
};

// A limit of a budget, named by what its costs count: "bytes", "nanoseconds of latency".
[[nodiscard]] ChoiceLimit ChoiceLimitOf(const Limit& limit, std::int64_t capacity);

// Error(kInfeasible) when no plan fits. The message is a certificate: the one limit that the cheapest plan exceeds; or
// the limits that can be met alone and not together, each with the nearest value that goes with the others.
// Error(kUsage) in one line for an allocator that needs an ordered axis of widths, or an unknown one.
[[nodiscard]] ChoiceSolution SolveChoices(const ChoiceProblem& problem, const ChoiceOptions& options = {});

}  // namespace bitplan
