// The smallest plan that surely loses no more accuracy than `allocate.budget.drop` allows.
#pragma once

#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

// Plans along the budgets of the resource, at most five of which are quantized and measured on calibration images. What
// was measured stays in the folder, so a search that was killed goes on. The answer is a draft that states its budget,
// which is the chain's from here on, its corrections and Plan::drop. Error(kInfeasible) where no plan surely keeps the
// bound; Error(kUsage) without calibration images or for another task than classification.
[[nodiscard]] Plan SearchDrop(StageChain& chain, ProgressSink& progress);

}  // namespace bitplan::pipeline
