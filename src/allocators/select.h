// What every allocator ends with: the table's columns chosen for the units, turned into an Allocation.
#pragma once

#include <cstdint>
#include <vector>

#include "allocators/knapsack.h"
#include "bitplan/allocators/allocator.h"
#include "bitplan/allocators/choices.h"

namespace bitplan {

// `chosen`: one index into problem.widths per unit. Fills bits, cost and predicted_loss_rise.
[[nodiscard]] Allocation MakeAllocation(const AllocationProblem& problem, const Budget& budget,
                                        const std::vector<int>& chosen);

// One width for every unit, the largest that fits every limit; where none does, the narrowest.
[[nodiscard]] Allocation MakeUniform(const AllocationProblem& problem, const Budget& budget);

// The table as a multiple-choice knapsack over one resource: one class per unit, one item per width.
[[nodiscard]] std::vector<std::vector<KnapsackItem>> KnapsackClasses(const AllocationProblem& problem,
                                                                     const Resource& resource);

// The same over all limits of the budget, `values` [units][widths] in the place of the table's rises.
[[nodiscard]] ChoiceProblem ChoicesOfWidths(const AllocationProblem& problem, const Budget& budget,
                                            const std::vector<std::vector<double>>& values);

// The plan with the least sum of table entries, proven or with its gap in the note: by allocators/knapsack.h within one
// limit, by allocators/choices.h within several.
[[nodiscard]] Allocation SolveExactly(const AllocationProblem& problem, const Budget& budget);

// What a plan that grows step by step leaves of every limit.
class Room {
 public:
  Room(const AllocationProblem& problem, const Budget& budget, const std::vector<int>& chosen);

  // What remains of a limit; < 0: the plan is over it.
  [[nodiscard]] std::int64_t left(std::size_t limit) const { return left_[limit]; }
  [[nodiscard]] bool Over() const;
  // Whether the unit can go from one column to another.
  [[nodiscard]] bool Fits(std::size_t unit, int from, int to) const;
  // Goes there, whether it fits or not.
  void Move(std::size_t unit, int from, int to);
  // Cost of going there. Of one limit in its measure; of several the sum over them of shares of what was left at first.
  [[nodiscard]] double Price(std::size_t unit, int from, int to) const;

 private:
  [[nodiscard]] std::int64_t Step(std::size_t unit, int from, int to, std::size_t limit) const;

  const AllocationProblem& problem_;
  const Budget& budget_;
  std::vector<std::int64_t> left_;
  std::vector<double> share_;  // [limits] of what was left at first, per cost
};

// Takes steps to wider widths from the plan `chosen`, which leaves `room`, the largest fall of the loss rise per
// Room::Price first; a step may pass over widths that are worth less. Steps that do not fit are passed over, and steps
// that lower nothing are not taken. Equal steps: in the order of the units.
void SpendGreedily(const AllocationProblem& problem, Room& room, std::vector<int>& chosen);

}  // namespace bitplan
