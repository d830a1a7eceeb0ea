// `bitplan curve RECIPE`: accuracy against a resource, from the narrowest to the widest plan.
#pragma once

#include <cstdint>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/report/measured_curve.h"

namespace bitplan::pipeline {

struct MeasuredCurveReport {
  MeasuredCurve curve;
  CurveFiles files;
  std::int64_t measured = 0;  // plans that were measured now; others had been before
  std::vector<StageStatus> stages;
};

// Solves many budgets of one resource (allocate.budget.smallest, else average bits, or bops where activations have
// several widths) by the recipe's allocator. Of a recipe with several limits those on other resources hold at each.
// Measures curve.points of the plans on the verification split, and where curve.uniform asks one width for all layers
// at the same budgets. Each measurement is kept in the output folder under compare/, so that a killed curve continues.
// Writes curve.csv, curve.json, curve.html and curve-plans/. Error(kUsage) for another task than classification and for
// an allocator that learns from the network.
[[nodiscard]] MeasuredCurveReport MeasureCurve(const RecipeOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
