// `bitplan sure RECIPE`: whether the widths of which an allocator says that it is sure come again with fresh
// calibration data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/core/statistics.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct SureOptions {
  RecipeOptions recipe;
  int repeats = 8;  // calibration seeds beside the recipe's own, >= 2
};

// Widths whose confidence lies in [low, high), 1 included in the last.
struct SureBin {
  double low = 0.0, high = 1.0;
  std::int64_t widths = 0;  // stated, of all layers, budgets and seeds
  double stated = 0.0;      // mean confidence
  SharePerPair returned{};  // with another seed
};

// The answer at one budget with one calibration seed.
struct SureAnswer {
  std::uint64_t calibration_seed = 1;
  double budget = 0.0;  // average bits
  std::vector<int> bits;
  std::vector<double> confidence;  // of every layer
};

struct SureReport {
  std::string model, allocator;
  std::vector<std::string> layers;  // whose width no pin and no exclusion fixes
  std::vector<double> budgets;
  std::vector<std::uint64_t> seeds;
  std::vector<SureBin> bins;  // that hold a width, ascending
  SureBin all;
  std::vector<SureAnswer> answers;
  std::vector<StageStatus> stages;
};

// Allocates at every budget of compare.budgets with the recipe's calibration seed and `repeats` more, each with its own
// posterior, table, draws and confidence. Every seed's statements are held against the answers of all others. The
// network is the same for all; nothing is applied or measured. Error(kUsage) when the allocator states no confidence.
[[nodiscard]] SureReport CheckSure(const SureOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
