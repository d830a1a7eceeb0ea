// lagrangian: the budget as a price. For a price lambda per cost every unit alone takes the width that minimises
// loss rise + lambda * cost; the largest value of
//   sum_u min_k (rise + lambda * cost) - lambda * capacity
// over lambda is the dual bound, which no plan within the budget is predicted below, and its lambda the shadow price:
// what one more weight bit (or byte) is worth. The walk of allocators/knapsack.h finds both by halving the steps of the
// convex hulls, in O(n); the plan spends what is left on the further steps that fit.
//
// The plan never uses a width above the convex hull of its row; what it is predicted to cost exceeds the bound by less
// than the first hull step that did not fit is worth.

#include <algorithm>

#include "allocators/select.h"

namespace bitplan {

Allocation AllocateLagrangian(const AllocatorInputs& inputs) {
  const KnapsackRelaxation relaxation =
      RelaxKnapsack(KnapsackClasses(inputs.problem, inputs.budget.resource), Capacity(inputs.problem, inputs.budget));
  Allocation result = MakeAllocation(inputs.problem, inputs.budget.resource, relaxation.filled);
  result.has_bound = true;
  result.lower_bound = std::min(relaxation.lower_bound, result.predicted_loss_rise);
  result.shadow_price = relaxation.shadow_price;
  return result;
}

}  // namespace bitplan
