// `bitplan import`: widths that another tool chose, as a plan of ours.
#pragma once

#include <filesystem>

#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/pipeline/run.h"

namespace bitplan::pipeline {

struct ImportOptions {
  RecipeOptions recipe;            // its model and quantizer; nothing is allocated
  std::filesystem::path widths;    // io/widths.h
  std::filesystem::path out_plan;  // where the plan is written; empty: plan.yaml of the output folder
};

// Every layer of the model gets the width that stands beside its name, or beside the name of its weight. The plan is
// not measured: `verify` does. Runs the stages that its prediction needs. Error(kData) for a name that is no layer
// (with the nearest), and for a layer without a width.
[[nodiscard]] RunReport ImportPlan(const ImportOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
