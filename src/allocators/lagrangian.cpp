// lagrangian: the budget as a price. For a price lambda per cost every unit alone takes the width that minimises
// loss rise + lambda * cost; the largest value of
//   sum_u min_k (rise + lambda * cost) - lambda * capacity
// over lambda is the dual bound, which no plan within the budget is predicted below, and its lambda the shadow price:
// what one more weight bit (or byte) is worth. With several limits every one has its price, found by cutting planes,
// and the plan is repaired and filled up (allocators/choices.h). With one limit the walk of allocators/knapsack.h finds
// both by halving the steps of the convex hulls, in O(n); the plan spends what is left on the further steps that fit.
//
// The plan never uses a width above the convex hull of its row; what it is predicted to cost exceeds the bound by less
// than the first hull step that did not fit is worth.

#include <algorithm>

#include "allocators/select.h"

namespace bitplan {

Allocation AllocateLagrangian(const AllocatorInputs& inputs) {
  const AllocationProblem& problem = inputs.problem;
  if (inputs.budget.limits.size() > 1) {
    const ChoiceSolution solution =
        SolveChoices(ChoicesOfWidths(problem, inputs.budget, problem.loss_rise), {.method = "lagrangian"});
    Allocation result = MakeAllocation(problem, inputs.budget, solution.chosen);
    result.has_bound = true;
    result.lower_bound = std::min(solution.lower_bound, result.predicted_loss_rise);
    result.shadow_prices = solution.prices;
    return result;
  }
  const Limit& limit = inputs.budget.limits.front();
  const KnapsackRelaxation relaxation =
      RelaxKnapsack(KnapsackClasses(problem, limit.resource), Capacity(problem, limit));
  Allocation result = MakeAllocation(problem, inputs.budget, relaxation.filled);
  result.has_bound = true;
  result.lower_bound = std::min(relaxation.lower_bound, result.predicted_loss_rise);
  result.shadow_prices = {relaxation.shadow_price};
  return result;
}

}  // namespace bitplan
