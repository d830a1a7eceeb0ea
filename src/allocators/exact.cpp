// exact: the plan with the least predicted loss rise within the budget. The table makes the choice a multiple-choice
// knapsack problem (allocators/knapsack.h says how it is solved): one class per unit, one item per width. Loss rises
// that grow with the bits, as they do on some layers, are handled: such widths are never chosen. The answer is
// proven optimal unless the note says otherwise; then optimality_gap() is the true gap.
#include <fmt/format.h>

#include "allocators/knapsack.h"
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateExact(const AllocationProblem& problem, const Budget& budget, const AllocateOptions& /*options*/,
                         std::uint64_t /*seed*/) {
  std::vector<std::vector<KnapsackItem>> classes(problem.units.size());
  for (std::size_t u = 0; u < classes.size(); ++u) {
    classes[u].reserve(problem.widths.size());
    for (std::size_t k = 0; k < problem.widths.size(); ++k) {
      classes[u].push_back({Cost(problem.units[u], problem.widths[k], budget.kind), problem.loss_rise[u][k]});
    }
  }
  const KnapsackSolution solution = SolveKnapsack(classes, Capacity(problem, budget));
  Allocation result = MakeAllocation(problem, budget.kind, solution.chosen);
  result.has_bound = true;
  result.lower_bound = solution.optimal ? result.predicted_loss_rise : solution.lower_bound;
  result.shadow_price = solution.shadow_price;
  if (!solution.optimal) {
    result.note = fmt::format("stopped after {} states; the least predicted loss rise is between {:.6g} and {:.6g}",
                              solution.states, result.lower_bound, result.predicted_loss_rise);
  }
  return result;
}

}  // namespace bitplan
