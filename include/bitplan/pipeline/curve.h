// `bitplan allocate RECIPE --curve N`: the whole trade of bits against predicted loss from one saved table.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct CurvePoint {
  double budget = 0.0;    // average bits per weight
  PlanAchieved achieved;  // what the plan takes, its predicted loss rise and its optimality gap (< 0: none stated)
  // Nats that one more bit of one weight is worth; 0 when the allocator states none, or another limit binds.
  double shadow_price = 0.0;
  std::vector<int> bits;  // [layers]
};

struct CurveReport {
  std::filesystem::path folder;
  std::string model, allocator;
  std::vector<std::string> layers{};
  std::vector<CurvePoint> points{};  // ascending budgets
  double milliseconds = 0.0;         // from the loaded table to the last plan
  std::vector<std::string> notes{};  // figures that can hardly be right, and what they usually mean
  std::vector<StageStatus> stages{};
};

// `count` budgets, evenly spaced from the narrowest to the widest feasible plan; no plan is written. Error(kUsage) for
// an allocator that learns from the network, which would take an epoch for every point.
[[nodiscard]] CurveReport SolveCurve(const RecipeOptions& options, int count, ProgressSink& progress);

}  // namespace bitplan::pipeline
