// What every allocator ends with: the table's columns chosen for the units, turned into an Allocation.
#pragma once

#include <vector>

#include "bitplan/allocators/allocator.h"

namespace bitplan {

// `chosen`: one index into problem.widths per unit. Fills bits, cost and predicted_loss_rise.
[[nodiscard]] Allocation MakeAllocation(const AllocationProblem& problem, BudgetKind kind,
                                        const std::vector<int>& chosen);

}  // namespace bitplan
