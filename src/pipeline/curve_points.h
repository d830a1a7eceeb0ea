// Plans at many budgets from one table.
#pragma once

#include <vector>

#include "bitplan/pipeline/curve.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

// `count` average-bits budgets, evenly spaced from the narrowest to the widest plan that `allocate` allows, solved by
// its allocator, which must not learn from the network, on `table`.
[[nodiscard]] std::vector<CurvePoint> CurvePoints(StageChain& chain, const AllocationProblem& table,
                                                  AllocateOptions allocate, int count);

}  // namespace bitplan::pipeline
