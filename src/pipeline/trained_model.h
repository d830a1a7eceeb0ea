// The network that a recipe names, with the weights that it has.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan::pipeline {

struct TrainedModel {
  torch::jit::Module module;
  std::string name;  // of the file without its endings, or of the architecture
  std::string hash;  // of the bytes of all files
};

// `options.is_trained()`: the file, or the architecture, and `options.weights` over it. Both are looked for in
// `folders`. `seed`: of the weights that an architecture has before.
[[nodiscard]] TrainedModel LoadTrainedModel(const ModelOptions& options,
                                            const std::vector<std::filesystem::path>& folders, std::uint64_t seed);

}  // namespace bitplan::pipeline
