// A network in which two layers read one tensor, with data that it labels itself and a recipe.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <fstream>

#include "bitplan/pipeline/options.h"
#include "pipeline/arrays.h"

namespace bitplan::testing {

// conv a, then b and c on the same tensor, then a linear layer; labels are what the float network says.
inline void PrepareShared(const Folder& folder, std::int64_t train = 160) {
  torch::manual_seed(9);
  torch::jit::Module module("Net");
  module.register_parameter("a", torch::randn({8, 1, 3, 3}) * 0.4, false);
  module.register_parameter("b", torch::randn({8, 8, 3, 3}) * 0.2, false);
  module.register_parameter("c", torch::randn({8, 8, 1, 1}) * 0.5, false);
  module.register_parameter("fc", torch::randn({5, 8}), false);
  module.define(R"(
def forward(self, x):
  h = torch.relu(torch.conv2d(x, self.a, None, 1, 1))
  y = torch.relu(torch.conv2d(h, self.b, None, 1, 1) + torch.conv2d(h, self.c))
  return torch.linear(torch.amax(y, [2, 3]), self.fc)
)");
  module.eval();
  module.save((folder.path / "model.pt").string());
  for (const auto& [split, count] : {std::pair<std::string, std::int64_t>{"train", train}, {"test", 200}}) {
    const torch::Tensor images = torch::randn({count, 1, 8, 8});
    testing::WriteArray(folder.path / (split + "-images.npy"), images);
    testing::WriteArray(folder.path / (split + "-labels.npy"), module.forward({images}).toTensor().argmax(1));
  }
  std::ofstream(folder.path / "recipe.yaml")
      << "bitplan: 1\nname: shared\nmodel: {file: model.pt}\n"
         "data: {name: npy, train_images: train-images.npy, train_labels: train-labels.npy, test_images: "
         "test-images.npy, test_labels: test-labels.npy, calibration: 40}\n"
         "sensitivity: {samples: 96}\nallocate: {allocator: exact, draws: 0}\nverify: {bootstrap: 200}\n";
}

inline pipeline::RecipeOptions SharedOptions(const Folder& folder, std::vector<std::string> overrides) {
  pipeline::RecipeOptions options;
  options.recipe = folder.path / "recipe.yaml";
  options.data = folder.path;
  options.out = folder.path / "out";
  options.overrides = std::move(overrides);
  return options;
}

}  // namespace bitplan::testing
