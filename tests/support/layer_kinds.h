// Small classifiers with one layer of every kind that is planned, and what else belongs to it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bitplan/models/network.h"
#include "support/catch_torch.h"

namespace bitplan::testing {

struct LayerKind {
  std::string name;
  std::string kind;                  // Layer::kind of its first layer
  std::vector<std::int64_t> weight;  // shape
  std::vector<std::int64_t> input;   // of one image
  std::string call;                  // of x and self.w
  int output_dim;                    // which dimension of the weight counts output channels
  std::int64_t channels;             // of the outputs
  std::int64_t groups = 1;
  std::vector<std::int64_t> positions;  // of one image's outputs
};

// Windows with stride, padding and dilation, of one to three dimensions.
inline std::vector<LayerKind> ConvolutionKinds() {
  return {
      {"1d", "conv1d", {6, 4, 3}, {4, 11}, "torch.conv1d(x, self.w, None, 2, 1, 2)", 0, 6, 1, {5}},
      {"1d grouped", "conv1d", {6, 2, 3}, {4, 11}, "torch.conv1d(x, self.w, None, 1, 1, 1, 2)", 0, 6, 2, {11}},
      {"2d depthwise",
       "conv2d",
       {4, 1, 3, 3},
       {4, 7, 6},
       "torch.conv2d(x, self.w, None, [2, 1], [1, 1], [1, 1], 4)",
       0,
       4,
       4,
       {4, 6}},
      {"3d",
       "conv3d",
       {6, 2, 2, 3, 2},
       {2, 4, 7, 5},
       "torch.conv3d(x, self.w, None, [1, 2, 1], [1, 0, 1], [2, 1, 1])",
       0,
       6,
       1,
       {4, 3, 6}},
      {"3d grouped",
       "conv3d",
       {6, 1, 1, 2, 2},
       {2, 3, 4, 4},
       "torch.conv3d(x, self.w, None, [1, 1, 1], [0, 1, 0], [1, 1, 1], 2)",
       0,
       6,
       2,
       {3, 5, 3}},
      {"transposed 1d",
       "conv_transpose1d",
       {4, 6, 4},
       {4, 7},
       "torch.conv_transpose1d(x, self.w, None, 3, 1, 1, 1, 2)",
       1,
       6,
       1,
       {24}},
      {"transposed 2d",
       "conv_transpose2d",
       {3, 5, 3, 2},
       {3, 5, 4},
       "torch.conv_transpose2d(x, self.w, None, [2, 1], [1, 0], [1, 0], 1, [1, 2])",
       1,
       5,
       1,
       {10, 6}},
      {"transposed 3d",
       "conv_transpose3d",
       {3, 4, 2, 2, 3},
       {3, 3, 3, 4},
       "torch.conv_transpose3d(x, self.w, None, [1, 2, 2], [0, 1, 1])",
       1,
       4,
       1,
       {4, 4, 7}},
      {"transposed depthwise",
       "conv_transpose2d",
       {4, 1, 3, 3},
       {4, 4, 4},
       "torch.conv_transpose2d(x, self.w, None, [2, 2], [1, 1], [1, 1], 4)",
       0,
       4,
       4,
       {8, 8}},
  };
}

// The layer, a ReLU, the mean over positions, a linear layer with four outputs.
inline Network KindNetwork(const LayerKind& kind, std::uint64_t seed = 3) {
  torch::manual_seed(seed);
  torch::jit::Module module("Kind");
  module.register_parameter("w", torch::randn(kind.weight) * 0.5, false);
  module.register_parameter("fc", torch::randn({4, kind.channels}), false);
  module.define("def forward(self, x):\n    h = torch.relu(" + kind.call +
                ").flatten(2).mean([2])\n    return torch.linear(h, self.fc)\n");
  module.eval();
  return DescribeNetwork(module, kind.name, kind.input);
}

// Five words of a table with two vectors in one each; the second half of the table is met seldom.
inline Network WordNetwork(std::uint64_t seed = 3) {
  torch::manual_seed(seed);
  torch::jit::Module module("Words");
  module.register_parameter("table", torch::randn({12, 6}), false);
  module.register_parameter("fc", torch::randn({4, 6}), false);
  module.define(
      "def forward(self, x):\n    h = torch.relu(torch.embedding(self.table, x.long())).mean([1])\n"
      "    return torch.linear(h, self.fc)\n");
  module.eval();
  return DescribeNetwork(module, "words", {5});
}

// [n, 5] numbers of words as floats, small ones more often.
inline torch::Tensor Words(std::int64_t n, std::uint64_t seed = 5) {
  torch::manual_seed(seed);
  return torch::rand({n, 5}).square().mul(12.0).floor();
}

}  // namespace bitplan::testing
