// Tables of activations by the peers' principles, against networks with one tensor rounded.
#include "sensitivity/activation_tables.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include "bitplan/models/tap.h"
#include "bitplan/ptq/activations.h"
#include "sensitivity/residual_network.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ActivationSetting;
using testing::ResidualBatchNorm;
using Outputs = std::vector<torch::Tensor>;  // of every layer, each used once

const std::vector<int> kTestedWidths = {2, 3, 6};

// The network of a plan that rounds one tensor alone, as it is deployed.
torch::jit::Module RoundedAlone(const Network& network, std::size_t tensor, int bits, const Dataset& data) {
  const std::vector<std::size_t> reader = {0, 1, 1, 3};
  std::vector<int> activations;
  for (const std::size_t first : reader) activations.push_back(first == tensor ? bits : 32);
  AppliedPlan applied = ApplyBits(network, {32, 32, 32, 32}, {}, {}, {});
  QuantizeActivations(network, applied, activations, "max", data.images, SilentSink());
  return applied.module;
}

Outputs OutputsOf(const Network& network, const torch::jit::Module& module, const torch::Tensor& images,
                  torch::Tensor* logits) {
  Outputs outputs(network.layers.size());
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = [&](std::size_t l, const torch::Tensor& y) { outputs[l] = y; },
                 .on_batch_norm_input = nullptr});
  *logits = RunForward(module, images);
  return outputs;
}

ActivationRises TableBy(const std::string& metric, const ActivationSetting& setting, const Network& network) {
  ActivationSetting own = setting;
  own.options.metric = metric;
  const SensitivityInputs inputs = own.On(network, {4, 8});
  const ActivationLevels levels = FitActivationLevels(inputs, kTestedWidths, "max");
  return MeasureActivationTable(inputs, levels, SilentSink());
}

TEST_CASE("measured and activation-distance of activations are those of whole passes with one tensor rounded") {
  const torch::NoGradGuard no_grad;
  const Network network = ResidualBatchNorm();
  const ActivationSetting setting(network, 60);  // one minibatch
  const auto measured = TableBy("measured", setting, network), predictive = TableBy("predictive", setting, network),
             distance = TableBy("activation-distance", setting, network);
  CHECK(measured.tensors == std::vector<std::size_t>({0, 1, 1, 3}));
  torch::Tensor logits, rounded;
  const Outputs plain = OutputsOf(network, network.module, setting.data.images, &logits);
  for (const std::size_t tensor : {0, 1, 3}) {
    for (std::size_t a = 0; a < kTestedWidths.size(); ++a) {
      INFO("tensor " << tensor << " at " << kTestedWidths[a] << " bits");
      const auto module = RoundedAlone(network, tensor, kTestedWidths[a], setting.data);
      const Outputs now = OutputsOf(network, module, setting.data.images, &rounded);
      const torch::Tensor before = logits.log_softmax(1), after = rounded.log_softmax(1);
      const double divergence = (before.exp() * (before - after)).sum(1).mean().item<double>();
      CHECK(divergence > 0.0);
      CHECK(measured.loss_rise[tensor][a] == Approx(divergence).epsilon(2e-3).margin(1e-7));
      CHECK(predictive.loss_rise[tensor][a] == Approx(divergence).epsilon(2e-3).margin(1e-7));
      double total = 0.0;
      for (std::size_t l = 0; l < plain.size(); ++l) {
        total += ((now[l] - plain[l]).square().sum() / plain[l].square().sum()).item<double>() / 4.0;
      }
      CHECK(distance.loss_rise[tensor][a] == Approx(total).epsilon(1e-3));
    }
  }
  for (std::size_t a = 0; a < kTestedWidths.size(); ++a) CHECK(measured.loss_rise[2][a] == 0.0);  // read by 1 first
}

TEST_CASE("fisher-output of activations counts the outputs of every layer that reads the tensor") {
  const Network network = ResidualBatchNorm();
  const ActivationSetting setting(network, 60);
  const auto table = TableBy("fisher-output", setting, network);
  for (const Layer& layer : network.layers) GetTensor(network.module, layer.parameter).set_requires_grad(true);
  torch::Tensor logits, rounded;
  const Outputs plain = OutputsOf(network, network.module, setting.data.images, &logits);
  const torch::Tensor loss = torch::nll_loss(logits.log_softmax(1), setting.data.labels, {}, at::Reduction::Sum);
  const auto gradients = torch::autograd::grad({loss}, plain);
  for (const Layer& layer : network.layers) GetTensor(network.module, layer.parameter).set_requires_grad(false);
  const torch::NoGradGuard no_grad;
  for (const std::size_t tensor : {0, 1, 3}) {
    const std::vector<std::size_t> readers =
        tensor == 1 ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{tensor};
    for (std::size_t a = 0; a < kTestedWidths.size(); ++a) {
      INFO("tensor " << tensor << " at " << kTestedWidths[a] << " bits");
      const auto module = RoundedAlone(network, tensor, kTestedWidths[a], setting.data);
      const Outputs now = OutputsOf(network, module, setting.data.images, &rounded);
      double expected = 0.0;
      for (const std::size_t l : readers) {
        expected += 0.5 * ((now[l] - plain[l]) * gradients[l]).square().sum().item<double>() / 60.0;
      }
      CHECK(expected > 0.0);
      CHECK(table.loss_rise[tensor][a] == Approx(expected).epsilon(1e-3));
    }
  }
}

TEST_CASE("batch norms behind a rounded tensor follow in predictive and in the output metrics, and not in measured") {
  const Network network = ResidualBatchNorm();
  ActivationSetting setting(network, 100);
  std::map<std::string, double> off, follow;
  for (const char* metric : {"measured", "predictive", "activation-distance", "fisher-output"}) {
    setting.quantizer.batch_norm = "off";
    off[metric] = TableBy(metric, setting, network).loss_rise[0][0];
    setting.quantizer.batch_norm = "transfer";
    follow[metric] = TableBy(metric, setting, network).loss_rise[0][0];
  }
  CHECK(follow["measured"] == off["measured"]);
  for (const char* metric : {"predictive", "activation-distance", "fisher-output"}) {
    INFO(metric << ": " << off[metric] << ", " << follow[metric]);
    CHECK(std::abs(follow[metric] / off[metric] - 1.0) > 0.01);
  }
}

TEST_CASE("hawq and gradient of activations are the curvature and the slope of softmax regression at its inputs") {
  const Network network = testing::SoftmaxRegression(12, 4, 0.6);
  const ActivationSetting setting(network, 400);
  const auto trace = TableBy("hawq", setting, network), slope = TableBy("gradient", setting, network);
  const torch::NoGradGuard no_grad;
  const torch::Tensor weight = GetTensor(network.module, "fc.weight");
  const torch::Tensor images = setting.data.images.flatten(1);
  const torch::Tensor p = torch::linear(images, weight).softmax(1);
  // Of an image: tr(W' (diag p - p p') W), and |(p - y) W|.
  const torch::Tensor traces = p.matmul(weight.square().sum(1)) - p.matmul(weight).square().sum(1);
  const torch::Tensor gradients = (p - torch::one_hot(setting.data.labels, 4)).matmul(weight);
  const SensitivityInputs inputs = setting.On(network, {4});
  const ActivationLevels levels = FitActivationLevels(inputs, kTestedWidths, "max");
  for (std::size_t a = 0; a < kTestedWidths.size(); ++a) {
    const torch::Tensor error = levels.quantizers[0][a].Apply(images) - images;
    const double squared = error.square().sum(1).mean().item<double>();
    INFO(kTestedWidths[a] << " bits");
    CHECK(trace.loss_rise[0][a] == Approx(0.5 * traces.mean().item<double>() / 12.0 * squared).epsilon(0.15));
    CHECK(slope.loss_rise[0][a] == Approx((gradients * error).abs().sum(1).mean().item<double>()).epsilon(1e-3));
  }
}

// Two linear layers of five inputs; what `forward` reads as weights[0] has no place in the graph.
Network WithHiddenWeight(const std::vector<std::int64_t>& plain, const std::vector<std::int64_t>& hidden,
                         const std::string& forward) {
  torch::manual_seed(3);
  torch::jit::Module module("hidden");
  module.register_parameter("plain", torch::randn(plain), false);
  module.register_parameter("hidden", torch::randn(hidden), false);
  module.define("def forward(self, x):\n  weights = [self.hidden]\n  return " + forward + "\n");
  module.eval();
  return DescribeNetwork(module, "hidden", {5});
}

TEST_CASE("a tensor that has no place to be rounded at costs nothing, and the others cost what they do") {
  const Network network =
      WithHiddenWeight({6, 5}, {3, 6}, "torch.linear(torch.relu(torch.linear(x, self.plain)), weights[0])");
  REQUIRE(network.layers.size() == 2);
  const ActivationSetting setting(network, 60);
  // A layer without a place and one with a place read one tensor, the former first.
  const Network shared = WithHiddenWeight({4, 5}, {4, 5}, "torch.linear(x, weights[0]) + torch.linear(x, self.plain)");
  REQUIRE(shared.layers.size() == 2);
  REQUIRE(shared.layers[0].name == "hidden");
  const ActivationSetting other(shared, 60);
  for (const char* metric : {"measured", "predictive", "hawq", "gradient", "activation-distance", "fisher-output"}) {
    const ActivationRises rises = TableBy(metric, setting, network), of_shared = TableBy(metric, other, shared);
    INFO(metric);
    for (std::size_t a = 0; a < kTestedWidths.size(); ++a) {
      CHECK(rises.loss_rise[0][a] > 0.0);
      CHECK(rises.loss_rise[1][a] == 0.0);
      CHECK(of_shared.loss_rise[0][a] == 0.0);
      CHECK(of_shared.loss_rise[1][a] > 0.0);
    }
  }
}

}  // namespace
}  // namespace bitplan
