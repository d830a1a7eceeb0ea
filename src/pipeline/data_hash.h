// Data are known by the bytes of their files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan::pipeline {

// Of the recipe's data section and its files; what never sees the test split does not hang on it (`with_test` false).
[[nodiscard]] std::string DataHash(const Recipe& recipe, const std::vector<std::filesystem::path>& folders,
                                   bool with_test);

}  // namespace bitplan::pipeline
