// Whether a plan of a Bayesian network keeps its caps.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "bitplan/bayes/predict.h"
#include "bitplan/core/options.h"
#include "bitplan/report/bayesian.h"

namespace bitplan::pipeline {

// Both networks on the same images and draws. `several`: bool [images], which have several labels. One entry for each
// kind of image that there is: opposite changes of the two kinds must not cancel.
[[nodiscard]] std::vector<BayesCapCheck> CheckCaps(const BayesEvaluation& before, const BayesEvaluation& after,
                                                   const torch::Tensor& several);

// The first cap that a kind breaks, by its upper bound, in words; "" when all hold.
[[nodiscard]] std::string BrokenCap(const std::vector<BayesCapCheck>& checks, const BayesPlanOptions& caps);

}  // namespace bitplan::pipeline
