// Tables of metrics that run on from the quantized layer, against whole passes of the network.
#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include "bitplan/models/tap.h"
#include "bitplan/quantizers/quantizer.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "support/networks.h"

namespace bitplan {
namespace {

constexpr std::int64_t kImages = 40;

// A layer used twice, activations in place, a shortcut that is added in place.
Network InPlaceNetwork() {
  torch::manual_seed(6);
  torch::jit::Module module("in_place");
  for (const char* name : {"a", "b", "c", "d"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn({name[0] == 'd' ? 4 : 8, name[0] == 'a' ? 6 : 8}) * 0.4, false);
    module.register_module(name, child);
  }
  module.define(R"(
def forward(self, x):
  h = torch.linear(x.flatten(1), self.a.weight).relu_()
  g = torch.linear(h, self.b.weight).relu_()
  g = torch.linear(torch.tanh(g), self.c.weight)
  g += h
  g.relu_()
  g = torch.linear(g, self.b.weight)
  return torch.linear(g, self.d.weight)
)");
  module.eval();
  return DescribeNetwork(module, "in-place", {1, 2, 3});
}

struct WholePass {
  torch::Tensor logits;
  std::vector<std::vector<torch::Tensor>> outputs;  // [layers][uses]
};

WholePass RunWhole(const Network& network, const torch::jit::Module& module, const torch::Tensor& images) {
  WholePass pass{{}, std::vector<std::vector<torch::Tensor>>(network.layers.size())};
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = [&](std::size_t l, const torch::Tensor& y) { pass.outputs[l].push_back(y); },
                 .on_batch_norm_input = nullptr});
  pass.logits = RunForward(module, images);
  return pass;
}

TEST_CASE("tables of one layer at a time are those of whole passes, with layers used twice and activations in place") {
  const torch::NoGradGuard no_grad;
  const std::vector<int> widths = {1, 2, 4};
  for (const Network& network : {InPlaceNetwork(), testing::ConvBatchNorm()}) {
    const Dataset data = testing::RandomImages(network, kImages);  // all of them count, whatever their order
    const Normalizer normalizer{DataOptions{}};
    QuantizerOptions quantizer;
    quantizer.range = "mse";
    quantizer.batch_norm = "off";
    quantizer.centring = "off";
    const auto table = [&](const char* metric) {
      SensitivityOptions options;
      options.metric = metric;
      options.samples = static_cast<int>(kImages);
      return MeasureSensitivity({.network = network,
                                 .posterior = nullptr,
                                 .train = data,
                                 .normalizer = normalizer,
                                 .quantizer = quantizer,
                                 .options = options,
                                 .widths = widths,
                                 .seed = 1},
                                SilentSink())
          .loss_rise;
    };
    const auto measured = table("measured"), predictive = table("predictive"), distance = table("activation-distance");
    const WholePass plain = RunWhole(network, network.module, data.images);
    for (std::size_t l = 0; l < network.layers.size(); ++l) {
      const Layer& layer = network.layers[l];
      for (std::size_t k = 0; k < widths.size(); ++k) {
        INFO(network.name << " " << layer.name << " at " << widths[k] << " bits");
        const torch::jit::Module clone = CloneModule(network.module);
        const torch::Tensor slot = GetTensor(clone, layer.parameter);
        const WeightRows rows(slot, layer.output_dim, quantizer);
        slot.copy_(rows.Values(rows.Fit(widths[k], "auto")));
        const WholePass now = RunWhole(network, clone, data.images);
        const torch::Tensor before = plain.logits.log_softmax(1), after = now.logits.log_softmax(1);
        const double divergence = (before.exp() * (before - after)).sum(1).mean().item<double>();
        CHECK(measured[l][k] == Approx(divergence).epsilon(1e-3).margin(1e-6));
        CHECK(predictive[l][k] == Approx(divergence).epsilon(1e-3).margin(1e-6));
        double total = 0.0, points = 0.0;
        for (std::size_t other = 0; other < plain.outputs.size(); ++other) {
          for (std::size_t use = 0; use < plain.outputs[other].size(); ++use, points += 1.0) {
            const torch::Tensor& y = plain.outputs[other][use];
            total += ((now.outputs[other][use] - y).square().sum() / y.square().sum()).item<double>();
          }
        }
        CHECK(distance[l][k] == Approx(total / points).epsilon(1e-3).margin(1e-7));
      }
    }
  }
}

TEST_CASE("fisher-output looks at the outputs of every use of the quantized layer, as a whole pass leaves them") {
  const std::vector<int> widths = {1, 3};
  const Network network = InPlaceNetwork();
  const Dataset data = testing::RandomImages(network, kImages);
  const Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  quantizer.range = "mse";
  const auto table = MeasureSensitivity({.network = network,
                                         .posterior = nullptr,
                                         .train = data,
                                         .normalizer = normalizer,
                                         .quantizer = quantizer,
                                         .options = {.metric = "fisher-output", .samples = static_cast<int>(kImages)},
                                         .widths = widths,
                                         .seed = 1},
                                        SilentSink())
                         .loss_rise;
  for (const Layer& layer : network.layers) GetTensor(network.module, layer.parameter).set_requires_grad(true);
  const WholePass plain = RunWhole(network, network.module, data.images);
  const torch::Tensor loss = torch::nll_loss(plain.logits.log_softmax(1), data.labels, {}, at::Reduction::Sum);
  std::vector<torch::Tensor> flat;
  for (const auto& uses : plain.outputs) flat.insert(flat.end(), uses.begin(), uses.end());
  const auto gradients = torch::autograd::grad({loss}, flat);
  for (const Layer& layer : network.layers) GetTensor(network.module, layer.parameter).set_requires_grad(false);
  const torch::NoGradGuard no_grad;
  std::size_t first = 0;
  for (std::size_t l = 0; l < network.layers.size(); first += plain.outputs[l++].size()) {
    for (std::size_t k = 0; k < widths.size(); ++k) {
      INFO(network.layers[l].name << " at " << widths[k] << " bits");
      const torch::jit::Module clone = CloneModule(network.module);
      const torch::Tensor slot = GetTensor(clone, network.layers[l].parameter);
      const WeightRows rows(slot, network.layers[l].output_dim, quantizer);
      slot.copy_(rows.Values(rows.Fit(widths[k], "auto")));
      const WholePass now = RunWhole(network, clone, data.images);
      double expected = 0.0;
      for (std::size_t use = 0; use < plain.outputs[l].size(); ++use) {
        const torch::Tensor change = (now.outputs[l][use] - plain.outputs[l][use]) * gradients[first + use];
        expected += 0.5 * change.square().sum().item<double>() / static_cast<double>(kImages);
      }
      CHECK(table[l][k] == Approx(expected).epsilon(1e-3));
    }
  }
}

}  // namespace
}  // namespace bitplan
