// `bitplan compare RECIPE`: allocators x budgets, every plan measured on the same samples.
#pragma once

#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/report/comparison.h"

namespace bitplan::pipeline {

struct CompareReport {
  Comparison comparison;
  ReportFiles files;
  std::vector<StageStatus> stages;
  std::int64_t learned = 0;   // plans that an allocator learned from the network now; others had been learned before
  std::int64_t measured = 0;  // plans that were measured now; the others had been before, or are the same plan
};

// The recipe's section `compare` says which allocators, budgets and seeds. For every calibration seed each sensitivity
// table is measured once, and each different plan is corrected and measured once and kept in the output folder under
// compare/, so that a killed comparison continues; what an allocator learned from the network is kept in the manifest.
// The network is the same for all seeds. Writes compare.csv, compare.json, report.html, plots/ and the plan of every
// row and seed, as `verify --plan` takes it, into the output folder.
[[nodiscard]] CompareReport Compare(const RecipeOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
