// What became of the networks of a row: their changes against those of another row, seed by seed.
#pragma once

#include "bitplan/report/bayesian.h"
#include "pipeline/bayes_setup.h"
#include "pipeline/bayes_stages.h"

namespace bitplan::pipeline {

// Drops and changes of `row` against `reference`, whose networks have the same seeds and met the same draws.
[[nodiscard]] BayesChanges ChangesOf(const BayesRow& reference, const BayesRow& row, const BayesSetup& setup,
                                     const BayesFolder& folder);

}  // namespace bitplan::pipeline
