// What the user has decided already, taken out of an allocation problem before an allocator sees it.
//
//   excluded layers  stay in float and count neither in the budget nor in the average, but in the latency;
//   pinned layers    keep their width: their cost is charged to the budget first, and they leave the problem;
//   groups           layers that share one width become one unit: costs and rows of the table add up, percentiles are
//                    those of the weights of all members together.
//
// An exclusion goes before a pin. A pin of one member of a group holds for the group; pins that disagree there are an
// error, and so is a layer in two groups. Allocators know nothing of all this: they solve the problem that is left.
//
// Names are matched against patterns in which `*` stands for any text (points included) and `?` for one character. A
// pattern that matches no layer is Error(kUsage) with the nearest layer name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/problem.h"

namespace bitplan {

[[nodiscard]] bool MatchesPattern(std::string_view name, std::string_view pattern);

struct ConstrainedProblem {
  // Units that are still free, in the order of their names (so that no tie depends on the order in which a network
  // lists its layers), with the columns of options.bits. May have no units.
  AllocationProblem free;
  std::vector<std::vector<std::size_t>> layers;  // [units of free] units of the original problem, >= 1 each
  std::vector<std::size_t> columns;              // [widths of free] columns of the original problem
  std::vector<int> fixed_bits;                   // [original units] 0..8 pinned, kFloatBits excluded, -1 free
  std::int64_t weights = 0;                      // of free and pinned layers
  // [limits] of the pinned layers, in the measure of the limit; of the latency those in float too
  std::vector<std::int64_t> fixed_cost;
  double fixed_loss_rise = 0.0;        // of the pinned layers, nats per sample
  std::vector<std::int64_t> capacity;  // [limits] of the whole budget, excluded layers not counted
  bool pinned = false;                 // whether there are pinned layers that cost something

  // What the pins leave, as a budget of the free problem with exactly that capacity. `budget`: the whole one. Call when
  // fixed_cost <= capacity.
  [[nodiscard]] Budget FreeBudget(const Budget& budget) const;
};

// Error(kUsage) for a width that the table lacks, a pattern without a layer and decisions that contradict one another.
[[nodiscard]] ConstrainedProblem Constrain(const AllocationProblem& problem, const AllocateOptions& options);

// The widths that a sensitivity table must have for these options: options.bits and those of the pins, ascending.
[[nodiscard]] std::vector<int> TableWidths(const AllocateOptions& options);

}  // namespace bitplan
