// What follows from the measured plans of a comparison: intervals, ties, leads, recommendations.
#pragma once

#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/statistics.h"
#include "bitplan/report/comparison.h"

namespace bitplan::pipeline {

// One row of a comparison, or the float network, as it was measured: an entry per calibration seed. Empty of a row
// without a plan.
struct MeasuredRow {
  SeedOutcomes verify, calibration;
  SeedLosses calibration_nll;
  SeedOutcomes float_corrected{};  // of the float network with the correction that the plan got, verify split
};

struct MeasuredRows {
  std::vector<MeasuredRow> plans;  // in the order of Comparison::plans
  MeasuredRow reference;           // the float network
  SeedSamples verify = SeedSamples::kShared, calibration = SeedSamples::kShared;
};

// The mean of every figure; all are of one task.
[[nodiscard]] Metrics MeanOf(const std::vector<Metrics>& of_seeds);

// Means over seeds, and the plan of the first, out of ComparedPlan::seeds.
void SumUpSeeds(ComparedPlan& plan);

// ComparedPlan::drop, choice_drop, below_best, below_uniform, tie_with_best. The best of a budget is the plan with the
// highest mean accuracy, the lower NLL deciding between equals.
void Judge(Comparison& comparison, const MeasuredRows& rows, const Recipe& recipe);

// Comparison::leads.
void AddLeads(Comparison& comparison, const MeasuredRows& rows);

// The plans of Comparison::recommended, by its rule.
void Recommend(Comparison& comparison, const MeasuredRows& rows, const Recipe& recipe);

}  // namespace bitplan::pipeline
