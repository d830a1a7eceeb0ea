// Every built-in architecture; a new one is one function here and one line in architectures.cpp.
#pragma once

#include <torch/csrc/jit/api/module.h>

namespace bitplan {

[[nodiscard]] torch::jit::Module BuildLenet5();
[[nodiscard]] torch::jit::Module BuildLenet5Caffe();
[[nodiscard]] torch::jit::Module BuildLenet300100();
[[nodiscard]] torch::jit::Module BuildVgg16Bn();
[[nodiscard]] torch::jit::Module BuildResnet20();

}  // namespace bitplan
