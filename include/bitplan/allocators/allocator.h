// The contract of an allocator: (problem, budget, options, seed) -> allocation.
//
// Laws that every registered allocator obeys (tests/allocators/contract_test.cpp):
//   the cost is within the budget; the same seed gives the same answer; the order of the units does not matter;
//   a budget below the cheapest plan is Error(kInfeasible) with the nearest feasible budget and the blocking layers.
// Adding one: a file in src/allocators with one function, its declaration and its line in src/allocators/list.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/budget.h"
#include "bitplan/core/options.h"
#include "bitplan/core/problem.h"

namespace bitplan {

struct Allocation {
  std::vector<int> bits;             // one per unit
  std::int64_t cost = 0;             // in the budget's measure, see Cost()
  double predicted_loss_rise = 0.0;  // sum of the table's entries, nats per sample
  double lower_bound = 0.0;          // no plan within the budget is predicted below it; = the rise when proven optimal
  bool has_bound = false;            // false: the allocator states no bound
  double shadow_price = 0.0;         // nats that one more weight bit (or byte) is worth; 0 without a bound
  std::string note;                  // one line for the report, or empty

  // (rise - bound) / max(rise, tiny), or -1 without a bound.
  [[nodiscard]] double optimality_gap() const;
};

struct Allocator {
  const char* name;
  const char* description;  // one line
  Allocation (*allocate)(const AllocationProblem& problem, const Budget& budget, const AllocateOptions& options,
                         std::uint64_t seed);
};

// Every allocator, in the order of the list.
[[nodiscard]] const std::vector<Allocator>& Allocators();

// Error(kUsage) with the known names and the nearest one.
[[nodiscard]] const Allocator& FindAllocator(const std::string& name);

// Looks the allocator up, checks problem and budget (kInfeasible with a certificate), runs it and checks its answer.
// The allocator sees the columns of the table that options.bits asks for (kUsage when the table lacks one), and the
// units in the order of their names, so that no tie depends on the order in which a network lists its layers.
[[nodiscard]] Allocation Allocate(const AllocationProblem& problem, const AllocateOptions& options, std::uint64_t seed);

}  // namespace bitplan
