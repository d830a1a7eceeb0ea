// autoround: AutoScheme of Intel's AutoRound, metric `gradient`.
//
// What it publishes: a scheme (bits, group size, data type) is chosen for every layer so that the average bits of the
// quantized layers meet a target; layers that a server fuses can be made to share one. The user guide names dynamic
// programming as the solver. The score is the "delta loss": the change of the loss to first order, gradient times
// quantization error, in absolute value.
//
// Ours: the table holds sum |gradient x rounding error| per layer and width. A dynamic program over the budget and
// the exact knapsack minimise the same sum, so the plan is the same wherever the optimum is unique. Their average
// counts scales and zero points unless told otherwise (budget `bytes` is the nearest to that); activations count in
// theirs when a scheme quantizes them; rounding is tuned afterwards, which ours is not.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateAutoRound(const AllocatorInputs& inputs) { return SolveExactly(inputs.problem, inputs.budget); }

}  // namespace bitplan
