// exact: the plan with the least predicted loss rise within the budget. The table makes the choice a multiple-choice
// knapsack problem (allocators/knapsack.h says how it is solved): one class per unit, one item per width. Loss rises
// that grow with the bits, as they do on some layers, are handled: such widths are never chosen. The answer is
// proven optimal unless the note says otherwise; then optimality_gap() is the true gap.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateExact(const AllocatorInputs& inputs) { return SolveExactly(inputs.problem, inputs.budget); }

}  // namespace bitplan
