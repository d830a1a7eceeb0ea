// plan.yaml, format version 1 (docs/plan.md). Unknown keys are errors; the same plan gives the same bytes.
#pragma once

#include <filesystem>
#include <string>

#include "bitplan/core/plan.h"

namespace bitplan {

[[nodiscard]] std::string DumpPlan(const Plan& plan);
[[nodiscard]] Plan ParsePlan(const std::string& text, const std::string& file_name);  // Error(kData): file:line: what
[[nodiscard]] Plan LoadPlan(const std::filesystem::path& file);                       // Error(kNotFound) if missing

// Every key of the format with its meaning: `bitplan help plan`.
[[nodiscard]] std::string PlanHelp();

}  // namespace bitplan
