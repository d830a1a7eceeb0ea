// Data are known by the bytes of their files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan::pipeline {

// Of the recipe's data section and its files; what never sees the test split does not hang on it (`with_test` false).
[[nodiscard]] std::string DataHash(const Recipe& recipe, const std::vector<std::filesystem::path>& folders,
                                   bool with_test);

// "12 calibration rows, a fifth, for data.calibration 5,000 is more than half": where `taken` are fewer than the recipe
// asks for; else empty.
[[nodiscard]] std::string FewerCalibration(const DataOptions& options, std::int64_t taken, const std::string& sample);

// Files of the test split, and how many of these are files of the training split too, under whatever name.
[[nodiscard]] std::pair<std::int64_t, std::int64_t> SharedFiles(const DataOptions& options,
                                                                const std::vector<std::filesystem::path>& folders);

}  // namespace bitplan::pipeline
