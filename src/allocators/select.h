// What every allocator ends with: the table's columns chosen for the units, turned into an Allocation.
#pragma once

#include <cstdint>
#include <vector>

#include "allocators/knapsack.h"
#include "bitplan/allocators/allocator.h"

namespace bitplan {

// `chosen`: one index into problem.widths per unit. Fills bits, cost and predicted_loss_rise.
[[nodiscard]] Allocation MakeAllocation(const AllocationProblem& problem, const Resource& resource,
                                        const std::vector<int>& chosen);

// One width for every unit, the largest that fits.
[[nodiscard]] Allocation MakeUniform(const AllocationProblem& problem, const Budget& budget);

// The table as a multiple-choice knapsack: one class per unit, one item per width.
[[nodiscard]] std::vector<std::vector<KnapsackItem>> KnapsackClasses(const AllocationProblem& problem,
                                                                     const Resource& resource);

// The plan with the least sum of table entries, proven or with its gap in the note.
[[nodiscard]] Allocation SolveExactly(const AllocationProblem& problem, const Budget& budget);

// Cost of the next wider width, column + 1, above that of `column`.
[[nodiscard]] std::int64_t StepCost(const AllocationProblem& problem, const Resource& resource, std::size_t unit,
                                    int column);

// Takes steps to wider widths from the plan `chosen`, `left` of the budget unspent, the largest fall of the loss rise
// per cost first; a step may pass over widths that are worth less. Steps that do not fit are passed over, and steps
// that lower nothing are not taken. Equal steps: in the order of the units.
void SpendGreedily(const AllocationProblem& problem, const Resource& resource, std::int64_t left,
                   std::vector<int>& chosen);

}  // namespace bitplan
