// mct: the mixed-precision search of Sony's Model Compression Toolkit, metric `activation-distance`.
//
// What it publishes: a few representative images pass through the float model and through models in which one layer
// differs from the largest configuration; the sensitivity is a distance between the activations of both at chosen
// points of the network, averaged over the points (or weighted). The widths of all layers follow from an integer linear
// program that minimises the sum of the sensitivities under a limit on resources, with every row made to fall with the
// bits. Options refine the solution afterwards and weigh the points by Hessian scores.
//
// Ours: the table has one layer quantized and all others in float, where theirs has the others at their largest width
// (8 bits and more are next to float here); the same sum over such a table, minimised by the exact knapsack, which
// gives the same optimum as the program without its time limit. Rows are taken as measured, no refinement, weights
// only, this tool's quantizers and budget.
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateMct(const AllocatorInputs& inputs) { return SolveExactly(inputs.problem, inputs.budget); }

}  // namespace bitplan
