// nncf: mixed-precision weight compression of OpenVINO's NNCF, metric `hawq`.
//
// What it publishes: two widths, 4 bits for most layers and 8 bits as the backup, and a ratio, the share of weights
// that are to get 4 bits. Layers are ordered by a sensitivity (for the data-aware criterion of that name the mean
// Hessian trace of the layer-wise error times the norm of the 8-bit rounding error); the least sensitive ones get 4
// bits, in order, until the next one would take the share past the ratio. There the walk stops, also when a smaller
// layer behind would fit.
//
// Ours: the sensitivity of a unit is the table's entry at the widest width. All units begin at the widest width; in
// ascending order of sensitivity they go to the next narrower one until the plan fits every limit, and the walk stops
// there: what the last unit gave up beyond need is not spent. When all have been lowered and the plan still does not
// fit, the walk goes round again with the next width. So a plan holds two neighbouring widths, as theirs does. It
// differs in that a budget must be met where a ratio is only approached, in that the two widths follow from the budget,
// and in the metric: theirs takes the trace of the layer-wise error, from input activations alone, times the norm of
// the rounding error; ours is HAWQ's, the trace of the labelled loss times the squared norm. Embeddings and last
// layers, which NNCF keeps at 8 bits by default, take part.
#include <algorithm>
#include <numeric>

#include "allocators/select.h"

namespace bitplan {

Allocation AllocateNncf(const AllocatorInputs& inputs) {
  const AllocationProblem& problem = inputs.problem;
  const int widest = static_cast<int>(problem.widths.size()) - 1;
  std::vector<std::size_t> order(problem.units.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return problem.loss_rise[a][widest] < problem.loss_rise[b][widest];
  });
  std::vector<int> chosen(problem.units.size(), widest);
  Room room(problem, inputs.budget, chosen);
  for (int column = widest - 1; column >= 0 && room.Over(); --column) {
    for (const std::size_t u : order) {
      if (!room.Over()) break;
      chosen[u] = column;
      room.Move(u, column + 1, column);
    }
  }
  return MakeAllocation(problem, inputs.budget, chosen);
}

}  // namespace bitplan
