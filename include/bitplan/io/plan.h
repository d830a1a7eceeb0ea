// plan.yaml, format version 1 (docs/plan.md). Unknown keys are errors; the same plan gives the same bytes.
//
// Example: what the layers of a plan take, and the same plan with more bits for the first one.
//
//   #include <bitplan/io/plan.h>
//   #include <cstdio>
//   bitplan::Plan plan = bitplan::LoadPlan("plan.yaml");
//   for (const bitplan::PlanLayer& layer : plan.layers) std::printf("%s: %d bits\n", layer.name.c_str(), layer.bits);
//   plan.layers.front().bits = 8;
//   const bitplan::Plan edited = bitplan::ParsePlan(bitplan::DumpPlan(plan), "edited.yaml");
//   assert(edited.layers.front().bits == 8);
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
