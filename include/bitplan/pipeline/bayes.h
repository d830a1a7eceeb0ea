// `bitplan bayes`: Bayesian networks trained, quantized, fine-tuned and measured.
//
// For every seed: the float network (variational inference), its control (the same after fine-tuning, not rounded), a
// row for every scheme, width and stage, then the plan that gives means and standard deviations their own widths. Every
// network is a stage of the output folder: a killed run continues with the next. Files: seed-S/NAME.packed (the network
// as stored, from which it was measured), seed-S/NAME.pt (uncertainties per image), bayes.json, bayes.csv,
// bayes-changes.csv, report.html, plots/.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/report/bayesian.h"

namespace bitplan::pipeline {

struct BayesReport {
  BayesComparison comparison;
  std::filesystem::path folder;
  std::vector<std::string> files;
  std::vector<StageStatus> stages;
  std::vector<std::string> notes;  // figures that can hardly be right, and what they usually mean
};

[[nodiscard]] BayesReport Bayes(const RecipeOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
