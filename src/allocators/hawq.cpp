// hawq: the allocation of HAWQ-V2 and HAWQ-V3 (Dong et al. 2020; Yao et al. 2021), metric `hawq`.
//
// What they publish: the sensitivity of a layer at a width is the mean trace of its Hessian (Hutchinson's estimator)
// times the squared norm of what quantization changes in its weights; the widths minimise the sum of the sensitivities
// subject to a limit on model size, bit operations or latency, as an integer linear program (HAWQ-V3; HAWQ-V2 walks
// along a Pareto front of the same sum). The network is then trained further with quantized weights and activations.
//
// Ours: the same sum over the same kind of table, minimised by the exact knapsack instead of a general solver, which
// gives the same optimum. The limit is this tool's budget; weights only; no fine-tuning, and this tool's quantizers.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateHawq(const AllocatorInputs& inputs) { return SolveExactly(inputs.problem, inputs.budget); }

}  // namespace bitplan
