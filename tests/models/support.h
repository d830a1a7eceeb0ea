// Small modules written in the test, and folders for files.
#pragma once

#include "support/catch_torch.h"

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"

namespace bitplan::testing {

using Tensors = std::vector<std::pair<std::string, torch::Tensor>>;

// A module of parameters and buffers with this forward.
inline torch::jit::Module MakeModule(const Tensors& parameters, const std::string& text, const Tensors& buffers = {}) {
  torch::jit::Module module("Test");
  for (const auto& [name, value] : parameters) module.register_parameter(name, value, false);
  for (const auto& [name, value] : buffers) module.register_buffer(name, value);
  module.register_attribute("training", c10::BoolType::get(), false);
  module.define(text);
  return module;
}

// conv [4, 2, 3, 3] without padding, batch norm, linear [3, 4] on the mean over pixels.
inline torch::jit::Module SmallConvNet() {
  torch::manual_seed(1);
  return MakeModule({{"conv", torch::randn({4, 2, 3, 3})},
                     {"conv_bias", torch::randn({4})},
                     {"scale", torch::rand({4}) + 0.5},
                     {"shift", torch::randn({4})},
                     {"fc", torch::randn({3, 4})},
                     {"fc_bias", torch::randn({3})}},
                    R"(
def forward(self, x):
    x = torch.conv2d(x, self.conv, self.conv_bias)
    x = torch.batch_norm(x, self.scale, self.shift, self.mean, self.variance, False, 0.1, 1e-05, False)
    x = torch.relu(x).mean([2, 3])
    return torch.linear(x, self.fc, self.fc_bias)
)",
                    {{"mean", torch::zeros({4})}, {"variance", torch::ones({4})}});
}

// The foreign models, when their folder is there.
inline std::optional<std::filesystem::path> ForeignModel(const std::string& name) {
  const char* folder = std::getenv("BITPLAN_DATA");
  const std::filesystem::path data = folder != nullptr ? folder : BITPLAN_SOURCE_DIR "/data";
  const auto file = data / "models" / name;
  if (std::filesystem::exists(file)) return file;
  WARN("skipped: " << name << " is not in the data folder (set BITPLAN_DATA)");
  return std::nullopt;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "bitplan-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

struct Caught {
  ErrorKind kind;
  std::string message;
};

inline Caught CatchError(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  FAIL("no bitplan::Error was thrown");
  return {ErrorKind::kInternal, ""};
}

}  // namespace bitplan::testing
