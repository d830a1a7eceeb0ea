// Built-in architectures, written as TorchScript text.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bitplan {

struct Architecture {
  const char* name;  // lenet5, lenet5-caffe, lenet-300-100, vgg16-bn, resnet20
  const char* description;
  std::vector<std::int64_t> input_shape;  // [C, H, W]
  int classes;
  torch::jit::Module (*build)();  // parameters allocated, not yet initialized
};

[[nodiscard]] const std::vector<Architecture>& Architectures();
[[nodiscard]] const Architecture& FindArchitecture(const std::string& name);  // Error(kUsage), nearest name

// Builds and initializes: weights normal with variance 1 / fan-in (most layers here are followed by batch norm or by no
// activation, so He's factor 2 only makes the first logits large; LeNet's calibration loss agrees, docs/method.md),
// zero biases; stream "model/init". Evaluation mode, gradients off.
[[nodiscard]] torch::jit::Module BuildArchitecture(const std::string& name, std::uint64_t seed);

// Sets the probability of every dropout of a built-in architecture: 0 at first, in effect in training mode only.
void SetDropout(torch::jit::Module& module, double probability);

}  // namespace bitplan
