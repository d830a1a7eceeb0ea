// The smallest plan that surely loses no more accuracy than `allocate.budget.drop` allows.
#pragma once

#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

struct DropAnswer {
  Plan plan;  // drafted; states its budget, its corrections and Plan::drop
  double allocate_ms = 0.0;
};

// Plans along the budgets of the resource, at most five of which are quantized and measured on calibration images. What
// was measured stays in the folder, so a search that was killed goes on. From here on the chain's budget is that of the
// plan, and it quantizes as the plan says. Error(kInfeasible) where no plan surely keeps the bound, with the drop that
// the best one surely keeps; Error(kUsage) without calibration images or for another task than classification.
[[nodiscard]] DropAnswer SearchDrop(StageChain& chain, ProgressSink& progress);

}  // namespace bitplan::pipeline
