// The modules that architectures are made of, each with its own `weight`, as TorchScript.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <memory>
#include <string>

namespace bitplan {

// Collects the submodules of one architecture in one compilation unit.
class ModuleMaker {
 public:
  // An empty module in training mode; `type` is the class name that Python sees.
  [[nodiscard]] torch::jit::Module Empty(const std::string& type) const;
  // [out, in, kernel, kernel]
  [[nodiscard]] torch::jit::Module Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                                          std::int64_t padding, bool bias) const;
  // [out, in] and bias
  [[nodiscard]] torch::jit::Module Linear(std::int64_t in, std::int64_t out) const;
  // Its probability is 0 until SetDropout says otherwise.
  [[nodiscard]] torch::jit::Module Dropout() const;
  // Momentum 0.1, epsilon 1e-5.
  [[nodiscard]] torch::jit::Module BatchNorm2d(std::int64_t channels) const;

 private:
  std::shared_ptr<torch::jit::CompilationUnit> unit_ = std::make_shared<torch::jit::CompilationUnit>();
};

}  // namespace bitplan
