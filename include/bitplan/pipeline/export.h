// `bitplan export`: the quantized network of an output folder in another form (exporters/exporter.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct ExportOptions {
  RecipeOptions recipe;        // only its name and `out` are read: they say where the output folder lies
  std::string format;          // packed, torchscript, ...
  std::filesystem::path plan;  // one of plans/NAME/plan.yaml, with its network beside it; empty: the newest
  std::filesystem::path file;  // empty: the exporter's own name, in the folder of the plan
};

struct ExportReport {
  std::string format;
  std::filesystem::path plan_file;
  std::filesystem::path file;
  std::filesystem::path second_file;  // empty: the format has one
  std::int64_t bytes = 0;             // of the file, or of both
  std::int64_t stored_bytes = 0;      // of the planned layers, as the plan states them
  std::int64_t float_bytes = 0;       // of everything that stays in float
};

// Runs no stage. Error(kNotFound) without a plan, or where its network is missing: the message names the command that
// makes it; Error(kUsage) for an unknown format, or a `file` that would overwrite a file of the run; Error(kData) where
// network and plan do not belong together. A file is whole or not there, and of two none gets its name before both are
// whole.
[[nodiscard]] ExportReport Export(const ExportOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
