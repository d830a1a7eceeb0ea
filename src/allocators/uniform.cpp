// uniform: one width for every unit, the largest that fits every limit of the budget. What is left over is not spent:
// that is what uniform means, and why it is the baseline that every other allocator is compared with.
#include "allocators/select.h"
#include "bitplan/core/error.h"

namespace bitplan {

Allocation AllocateUniform(const AllocatorInputs& inputs) {
  Allocation answer = MakeUniform(inputs.problem, inputs.budget);
  const std::vector<std::int64_t> capacities = Capacities(inputs.problem, inputs.budget);
  for (std::size_t r = 0; r < capacities.size(); ++r) {
    if (answer.cost[r] <= capacities[r]) continue;  // else only where costs fall with the width
    throw Error(ErrorKind::kInfeasible, "no width that all layers share keeps the limits; take exact or lagrangian");
  }
  return answer;
}

}  // namespace bitplan
