// modelopt: auto_quantize of NVIDIA's Model Optimizer, metric `fisher-output`.
//
// What it publishes: the score of a layer in a format is a Taylor expansion of the loss in the layer's quantized output
// with the Fisher information in place of the Hessian, that is (gradient x change of the output)^2 summed over the
// output. A linear program over binary variables picks the format of every layer so that the sum of the scores is least
// under a limit on effective bits; a format with more bits never counts as worse than one with fewer.
//
// Ours: the same program by the exact knapsack, on rows clipped the same way. Weights only, this tool's quantizers and
// budget, every layer a unit of its own (theirs groups layers that share an input).
#include <algorithm>

#include "allocators/select.h"

namespace bitplan {

Allocation AllocateModelOpt(const AllocatorInputs& inputs) {
  AllocationProblem falling = inputs.problem;
  for (auto& row : falling.loss_rise) {
    for (std::size_t w = 1; w < row.size(); ++w) row[w] = std::min(row[w], row[w - 1]);
  }
  Allocation answer = SolveExactly(falling, inputs.budget);
  double rise = 0.0;
  for (std::size_t u = 0; u < answer.bits.size(); ++u) {
    const auto& widths = inputs.problem.widths;
    const auto column = std::find(widths.begin(), widths.end(), answer.bits[u]) - widths.begin();
    rise += inputs.problem.loss_rise[u][static_cast<std::size_t>(column)];
  }
  answer.predicted_loss_rise = rise;
  return answer;
}

}  // namespace bitplan
