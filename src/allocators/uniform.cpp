// uniform: one width for every unit, the largest that fits every limit of the budget. What is left over is not spent:
// that is what uniform means, and why it is the baseline that every other allocator is compared with.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateUniform(const AllocatorInputs& inputs) { return MakeUniform(inputs.problem, inputs.budget); }

}  // namespace bitplan
