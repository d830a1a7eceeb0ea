// `bitplan list`: the plans of an output folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct ListedPlan {
  Plan plan;
  std::filesystem::path plan_file;
  std::filesystem::path quantized_file;  // empty: the plan was not applied, or its network was removed
  bool newest = false;                   // plan.yaml of the folder says the same
};

struct ListReport {
  std::filesystem::path folder;
  std::vector<ListedPlan> plans;        // by model, kind of budget, budget and allocator
  std::vector<std::string> unreadable;  // "FILE: why", of files under plans/ that are no plans
  std::vector<std::string> notes;       // figures that can hardly be right, and what they usually mean
};

// Every plans/NAME/plan.yaml of `options.out`, or of the recipe's folder where that is empty. Reads only. Error(kUsage)
// with neither, Error(kNotFound) when there is no such folder.
[[nodiscard]] ListReport ListPlans(const RecipeOptions& options);

}  // namespace bitplan::pipeline
