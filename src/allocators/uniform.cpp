// uniform: one width for every unit, the largest that fits the budget. What is left over is not spent: that is what
// uniform means, and why it is the baseline that every other allocator is compared with.
#include <fmt/format.h>

#include "allocators/select.h"

namespace bitplan {

Allocation AllocateUniform(const AllocationProblem& problem, const Budget& budget, const AllocateOptions& /*options*/,
                           std::uint64_t /*seed*/) {
  const std::int64_t capacity = Capacity(problem, budget);
  const int widths = static_cast<int>(problem.widths.size());
  Allocation best;
  for (int index = 0; index < widths; ++index) {
    Allocation candidate = MakeAllocation(problem, budget.kind, std::vector<int>(problem.units.size(), index));
    if (index > 0 && candidate.cost > capacity) break;
    best = std::move(candidate);
    best.note = fmt::format("every layer at {} bits", problem.widths[index]);
  }
  return best;
}

}  // namespace bitplan
