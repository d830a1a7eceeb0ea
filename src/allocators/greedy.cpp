// greedy: from the cheapest plan, always the step to a wider width that lowers the predicted loss rise most per cost
// (weight bit or byte). Of several limits the cost of a step is the sum over them of its share of what the cheapest
// plan leaves, and a step has to fit all of them. A step may pass over a width that is worth less than its neighbours;
// one that does not fit is passed over and the next best is taken, so that nothing is left that another step could use.
//
// On a table whose rows are convex this is the Lagrangian answer with the rest spent. Where a row is not convex, greedy
// is short-sighted: a dear step that would pay off most is beaten by a cheap one before it. States no bound.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateGreedy(const AllocatorInputs& inputs) {
  const AllocationProblem& problem = inputs.problem;
  std::vector<int> chosen(problem.units.size(), 0);
  Room room(problem, inputs.budget, chosen);
  SpendGreedily(problem, room, chosen);
  return MakeAllocation(problem, inputs.budget, chosen);
}

}  // namespace bitplan
