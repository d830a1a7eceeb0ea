// `bitplan diff`: what one plan does otherwise than another. Reads the two files, nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"

namespace bitplan::pipeline {

struct LayerDifference {
  std::string name;
  std::int64_t weights = 0;
  std::optional<PlanLayer> first, second;  // empty: this plan does not have the layer
};

struct DiffReport {
  std::filesystem::path first_file, second_file;
  Plan first, second;
  std::vector<LayerDifference> layers;  // those that differ in bits, grid or range, in the order of the first plan
  std::int64_t same = 0;                // layers that do not
  // Of layers that both plans round, weights times bits that the second has less or more.
  std::int64_t bits_taken = 0, bits_given = 0;
  std::vector<std::string> notes;  // what makes the figures hard to compare: another model, other images
};

// Error(kNotFound) or Error(kData) with the name of the file that is no plan.
[[nodiscard]] DiffReport DiffPlans(const std::filesystem::path& first, const std::filesystem::path& second);

}  // namespace bitplan::pipeline
