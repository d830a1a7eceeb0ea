// A network in which two layers read one tensor that is added behind them too, and what sensitivity inputs refer to.
#pragma once

#include <vector>

#include "bitplan/sensitivity/sensitivity.h"
#include "support/networks.h"

namespace bitplan::testing {

// stem - bn - relu = x; left(x) + right(x) + x - relu - mean - head.
inline Network ResidualBatchNorm() {
  torch::manual_seed(11);
  torch::jit::Module module("residual_batch_norm");
  for (const char* name : {"stem", "left", "right"}) {
    AddLayer(module, name, torch::randn({4, 4, 3, 3}) * 0.25);
  }
  torch::jit::Module norm("bn");
  norm.register_buffer("running_mean", torch::randn(4) * 0.3);
  norm.register_buffer("running_var", torch::rand(4) + 0.5);
  module.register_module("bn", norm);
  AddLayer(module, "head", torch::randn({3, 4}) * 2.0);
  module.define(R"(
def forward(self, x):
  x = torch.conv2d(x, self.stem.weight, None, 1, 1)
  x = torch.batch_norm(x, None, None, self.bn.running_mean, self.bn.running_var, False, 0.1, 1e-5, False)
  x = torch.relu(x)
  y = torch.conv2d(x, self.left.weight, None, 1, 1) + torch.conv2d(x, self.right.weight, None, 1, 1) + x
  return torch.linear(torch.mean(torch.relu(y), [2, 3]), self.head.weight)
)");
  module.eval();
  return DescribeNetwork(module, "residual-batch-norm", {4, 6, 6});
}

struct ActivationSetting {
  ActivationSetting(const Network& network, std::int64_t images) : data(RandomImages(network, images)) {
    quantizer.range = "mse";
    quantizer.batch_norm = "off";
    options.samples = static_cast<int>(images);
  }

  [[nodiscard]] SensitivityInputs On(const Network& network, const std::vector<int>& widths) const {
    return {.network = network,
            .posterior = nullptr,
            .train = data,
            .normalizer = normalizer,
            .quantizer = quantizer,
            .options = options,
            .widths = widths,
            .seed = 1};
  }

  Dataset data;
  Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  SensitivityOptions options;
};

}  // namespace bitplan::testing
