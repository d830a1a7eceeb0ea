// An untrained vision transformer of the usual shape: patches of 16 x 16 pixels, 12 heads, layer norms first. With 12
// blocks of 768 it has 85 million weights in layers.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace bitplan {

struct VisionTransformer {
  std::int64_t size = 224;  // pixels, a multiple of 16
  std::int64_t width = 768;
  int depth = 12;
  std::int64_t classes = 10;
};

// Images float32 [n, 3, size, size] in, logits [n, classes] out. Weights are normal, with a variance of one over the
// inputs.
inline torch::jit::Module BuildVisionTransformer(const VisionTransformer& shape, std::uint64_t seed) {
  torch::manual_seed(seed);
  constexpr std::int64_t kPatch = 16, kHeads = 12;
  const std::int64_t tokens = (shape.size / kPatch) * (shape.size / kPatch) + 1, width = shape.width;
  const std::string sizes = std::to_string(width);
  torch::jit::Module module("vision_transformer");
  const auto add = [&](const std::string& name, const std::vector<std::int64_t>& weight, bool norm) {
    torch::jit::Module child(name);
    const double inputs = static_cast<double>(torch::zeros(weight)[0].numel());
    child.register_parameter("weight", norm ? torch::ones(weight) : torch::randn(weight) / std::sqrt(inputs), false);
    child.register_parameter("bias", torch::zeros({weight[0]}), false);
    module.register_module(name, child);
  };
  add("patches", {width, 3, kPatch, kPatch}, false);
  module.register_parameter("first", torch::randn({1, 1, width}) * 0.02, false);
  module.register_parameter("position", torch::randn({1, tokens, width}) * 0.02, false);
  std::string code =
      "def forward(self, x):\n"
      "  h = torch.conv2d(x, self.patches.weight, self.patches.bias, [16, 16]).flatten(2).transpose(1, 2)\n"
      "  h = torch.cat([self.first.expand(h.size(0), -1, -1), h], 1) + self.position\n";
  const auto norm = [&](const std::string& name) {
    add(name, {width}, true);
    return "torch.layer_norm(h, [" + sizes + "], self." + name + ".weight, self." + name + ".bias)";
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t in, const std::string& input) {
    add(name, {out, in}, false);
    return "torch.linear(" + input + ", self." + name + ".weight, self." + name + ".bias)";
  };
  for (int b = 0; b < shape.depth; ++b) {
    const std::string block = "block" + std::to_string(b) + "_";
    code += "  n = " + norm(block + "norm1") + "\n";
    code += "  qkv = " + linear(block + "qkv", 3 * width, width, "n") + "\n";
    code += "  q, k, v = qkv.reshape([h.size(0), h.size(1), 3, " + std::to_string(kHeads) + ", " +
            std::to_string(width / kHeads) + "]).permute([2, 0, 3, 1, 4]).unbind(0)\n";
    code += "  a = torch.softmax(torch.matmul(q, k.transpose(-2, -1)) * " +
            std::to_string(1.0 / std::sqrt(static_cast<double>(width / kHeads))) + ", -1)\n";
    code += "  a = torch.matmul(a, v).transpose(1, 2).flatten(2)\n";
    code += "  h = h + " + linear(block + "proj", width, width, "a") + "\n";
    code += "  n = " + norm(block + "norm2") + "\n";
    code += "  n = torch.gelu(" + linear(block + "fc1", 4 * width, width, "n") + ")\n";
    code += "  h = h + " + linear(block + "fc2", width, 4 * width, "n") + "\n";
  }
  code += "  h = " + norm("norm") + "\n";
  code += "  return " + linear("head", shape.classes, width, "h[:, 0]") + "\n";
  module.define(code);
  module.eval();
  return module;
}

}  // namespace bitplan
