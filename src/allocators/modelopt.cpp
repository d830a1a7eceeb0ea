// modelopt: auto_quantize of NVIDIA's Model Optimizer, metric `fisher-output`.
//
// What it publishes: the score of a layer in a format is a Taylor expansion of the loss in the layer's quantized output
// with the Fisher information in place of the Hessian, that is (gradient x change of the output)^2 summed over the
// output. A linear programming solver picks the format of every layer so that the sum of the scores is least under a
// limit on effective bits. Its documentation does not say what happens to a layer whose solution is a fraction.
//
// Ours: the linear relaxation of the choice problem. Its optimum is whole but for at most one unit, which lies between
// two widths of its convex hull; that unit gets the narrower one, and what this frees is not spent. So the plan never
// uses a width above the hull, unlike an integer program (`hawq`, `mct`). Weights only, this tool's budget.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateModelOpt(const AllocatorInputs& inputs) {
  const KnapsackRelaxation relaxation =
      RelaxKnapsack(KnapsackClasses(inputs.problem, inputs.budget.kind), Capacity(inputs.problem, inputs.budget));
  return MakeAllocation(inputs.problem, inputs.budget.kind, relaxation.rounded_down);
}

}  // namespace bitplan
