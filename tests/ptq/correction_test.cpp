#include "bitplan/ptq/correction.h"

#include "bitplan/core/error.h"
#include "bitplan/models/tap.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/verify/evaluate.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

QuantizerOptions Method(const std::string& method) {
  QuantizerOptions options;
  options.batch_norm = method;
  options.output_correction = "off";
  return options;
}

// A clone whose layers all stay in float.
AppliedPlan InFloat(const Network& network) {
  return ApplyBits(network, std::vector<int>(network.layers.size(), 32), {}, {}, {});
}

double LargestChange(const Network& network, const torch::jit::Module& a, const torch::jit::Module& b) {
  double change = 0.0;
  for (const BatchNorm& norm : network.batch_norms) {
    for (const std::string& path : {norm.running_mean, norm.running_var}) {
      change = std::max(change, (GetTensor(a, path) - GetTensor(b, path)).abs().max().item<double>());
    }
  }
  return change;
}

TEST_CASE("transfer changes nothing in a network that is not quantized") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 300);
  AppliedPlan copy = InFloat(network);
  const auto correction =
      CorrectNetwork(network, copy, Method("transfer"), data.images, data, Normalizer({}), SilentSink());
  CHECK(correction.chosen.batch_norm == "transfer");
  CHECK(LargestChange(network, copy.module, network.module) < 1e-4);
}

TEST_CASE("after re-estimation every batch norm holds the statistics of the input that it sees, in order") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 200);
  AppliedPlan quantized = ApplyBits(network, {1, 1, 2}, {}, {}, {});
  (void)CorrectNetwork(network, quantized, Method("re-estimate"), data.images, data, Normalizer({}), SilentSink());
  CHECK(LargestChange(network, quantized.module, network.module) > 0.05);
  int seen = 0;
  const Tap tap(network, quantized.module,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
                   const auto [var, mean] = torch::var_mean(input, std::vector<std::int64_t>{0, 2, 3}, false);
                   const BatchNorm& norm = network.batch_norms[index];
                   CHECK(torch::allclose(GetTensor(quantized.module, norm.running_mean), mean, 1e-3, 1e-4));
                   CHECK(torch::allclose(GetTensor(quantized.module, norm.running_var), var, 1e-3, 1e-4));
                   ++seen;
                 }});
  quantized.module.forward({data.images});
  CHECK(seen == 2);
}

TEST_CASE("a batch norm that few images reach has the statistics of these, and keeps its own where none does") {
  const Network network = testing::RareBatchNorm(0.01);
  REQUIRE(network.batch_norms.size() == 1);
  Dataset data = RandomImages(network, 320);
  data.images = data.images.abs();  // none is dark
  const auto corrected = [&](const std::string& method) {
    AppliedPlan copy = InFloat(network);
    (void)CorrectNetwork(network, copy, Method(method), data.images, data, Normalizer({}), SilentSink());
    return copy.module;
  };
  for (const std::string method : {"re-estimate", "transfer"}) {
    CHECK(LargestChange(network, corrected(method), network.module) == 0.0);
  }
  data.images.slice(0, 280) *= -1.0;  // in the second minibatch of two, 40 of its 64
  CHECK(LargestChange(network, corrected("transfer"), network.module) < 1e-5);
  const torch::Tensor h = torch::linear(data.images.slice(0, 280).flatten(1), GetTensor(network.module, "fc1.weight"));
  CHECK(torch::allclose(GetTensor(corrected("re-estimate"), "bn.running_mean"), h.mean(0), 1e-4, 1e-5));
}

TEST_CASE("'auto' takes the candidate with the least calibration loss, never worse than off") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 400);
  const torch::jit::Module plain = ApplyBits(network, {1, 1, 8}, {}, {}, {}).module;
  AppliedPlan corrected = ApplyBits(network, {1, 1, 8}, {}, {}, {});
  const auto correction =
      CorrectNetwork(network, corrected, Method("auto"), data.images, data, Normalizer({}), SilentSink());
  REQUIRE(correction.candidates.size() == 3);
  const auto nll = [&](const torch::jit::Module& module) {
    return EvaluateLogits(PredictLogits(module, data, Normalizer({}), 64, "", SilentSink()), data.labels).metrics.nll;
  };
  CHECK(correction.candidates[0].nll == Approx(nll(plain)).epsilon(1e-4));
  double best = correction.candidates[0].nll;
  for (const auto& candidate : correction.candidates) best = std::min(best, candidate.nll);
  CHECK(nll(corrected.module) == Approx(best).epsilon(1e-4));
  CHECK(best < correction.candidates[0].nll);  // at one bit the correction is worth something
  CHECK(correction.chosen.batch_norm != "off");
}

TEST_CASE("'off' and networks without batch norm are left alone") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 50);
  AppliedPlan quantized = ApplyBits(network, {1, 1, 1}, {}, {}, {});
  const std::string before = ModelHash(quantized.module);
  CHECK(CorrectNetwork(network, quantized, Method("off"), data.images, data, Normalizer({}), SilentSink())
            .chosen.batch_norm == "off");
  CHECK(ModelHash(quantized.module) == before);
  const Network plain = testing::SoftmaxRegression(4, 3, 0.5);
  AppliedPlan copy = InFloat(plain);
  CHECK(CorrectNetwork(plain, copy, Method("transfer"), torch::zeros({1, 1, 1, 4}), {}, Normalizer({}), SilentSink())
            .chosen.batch_norm == "off");
}

TEST_CASE("'auto' without calibration images is a usage error") {
  const Network network = ConvBatchNorm();
  AppliedPlan copy = InFloat(network);
  CHECK_THROWS_AS(
      CorrectNetwork(network, copy, Method("auto"), torch::zeros({4, 1, 8, 8}), {}, Normalizer({}), SilentSink()),
      Error);
}

// conv with bias - relu - conv - relu - fc with bias, no batch norm; 1-bit weights lose the outputs' scale and mean.
Network ConvWithBias() {
  torch::manual_seed(3);
  torch::jit::Module module("conv_with_bias");
  const auto add = [&](const char* name, const torch::Tensor& weight, const torch::Tensor& bias) {
    torch::jit::Module child(name);
    child.register_parameter("weight", weight, false);
    if (bias.defined()) child.register_parameter("bias", bias, false);
    module.register_module(name, child);
  };
  add("conv1", torch::randn({6, 1, 3, 3}) * 0.4 + 0.1, torch::randn(6));
  add("conv2", torch::randn({8, 6, 3, 3}).pow(3) * 0.1, torch::Tensor());
  add("fc", torch::randn({4, 8}), torch::randn(4));
  module.define(R"(
def forward(self, x):
  x = torch.relu(torch.conv2d(x, self.conv1.weight, self.conv1.bias))
  x = torch.relu(torch.conv2d(x, self.conv2.weight))
  return torch.linear(torch.mean(x, [2, 3]), self.fc.weight, self.fc.bias)
)");
  module.eval();
  return DescribeNetwork(module, "conv-with-bias", {1, 8, 8});
}

std::vector<torch::Tensor> OutputsOf(const Network& network, torch::jit::Module module, const torch::Tensor& images) {
  std::vector<torch::Tensor> outputs(network.layers.size());
  const torch::NoGradGuard no_grad;
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = [&](std::size_t i, const torch::Tensor& output) { outputs[i] = output.clone(); },
                 .on_batch_norm_input = nullptr});
  module.forward({images});
  return outputs;
}

QuantizerOptions Outputs(const std::string& correction) {
  QuantizerOptions options;
  options.output_correction = correction;
  return options;
}

TEST_CASE("a fitted layer has the mean of the float outputs, and no scale or shift would bring it closer") {
  const Network network = ConvWithBias();
  REQUIRE(network.layers[0].bias == "conv1.bias");
  REQUIRE(network.layers[1].bias.empty());
  const Dataset data = RandomImages(network, 300);
  AppliedPlan fitted = ApplyBits(network, {1, 2, 1}, {}, {}, {});
  const auto plain = OutputsOf(network, fitted.module, data.images);
  const auto correction =
      CorrectNetwork(network, fitted, Outputs("fit"), data.images, data, Normalizer({}), SilentSink());
  CHECK(correction.chosen.outputs == "fit");
  CHECK(correction.candidates.empty());
  const auto target = OutputsOf(network, network.module, data.images);
  const auto after = OutputsOf(network, fitted.module, data.images);
  for (std::size_t i = 0; i < after.size(); ++i) {
    INFO(network.layers[i].name);
    const auto rows = [](const torch::Tensor& x) { return x.transpose(0, 1).reshape({x.size(1), -1}); };
    const torch::Tensor error = rows(after[i]) - rows(target[i]);
    const double scale = target[i].abs().max().item<double>();
    // The residual of least squares is orthogonal to what was fitted: the outputs, and the constant if there is a bias.
    CHECK((error * rows(after[i])).mean(1).abs().max().item<double>() < 1e-4 * scale * scale);
    if (!network.layers[i].bias.empty()) CHECK(error.mean(1).abs().max().item<double>() < 1e-4 * scale);
    CHECK(error.square().mean().item<double>() < (plain[i] - target[i]).square().mean().item<double>());
  }
}

TEST_CASE("per tensor, fitting keeps one scale for the whole layer") {
  const Network network = ConvWithBias();
  const Dataset data = RandomImages(network, 100);
  QuantizerOptions options = Outputs("fit");
  options.granularity = "tensor";
  AppliedPlan fitted = ApplyBits(network, {1, 1, 1}, {}, options, {});
  (void)CorrectNetwork(network, fitted, options, data.images, data, Normalizer({}), SilentSink());
  for (const Layer& layer : network.layers) {
    const torch::Tensor magnitude = GetTensor(fitted.module, layer.parameter).abs();
    CHECK(magnitude.max().item<float>() == Approx(magnitude.min().item<float>()));
  }
}

TEST_CASE("outputs are not fitted where batch norm follows, nor in layers that were left alone") {
  const Network network = ConvBatchNorm();
  const Dataset data = RandomImages(network, 100);
  AppliedPlan fitted = ApplyBits(network, {1, 1, 1}, {}, {}, {});
  const torch::jit::Module before = CloneModule(fitted.module);
  QuantizerOptions options = Outputs("fit");
  options.batch_norm = "off";
  CHECK(CorrectNetwork(network, fitted, options, data.images, data, Normalizer({}), SilentSink()).chosen.outputs ==
        "fit");
  CHECK(torch::equal(GetTensor(before, "conv1.weight"), GetTensor(fitted.module, "conv1.weight")));
  CHECK(torch::equal(GetTensor(before, "conv2.weight"), GetTensor(fitted.module, "conv2.weight")));
  CHECK_FALSE(torch::equal(GetTensor(before, "fc.weight"), GetTensor(fitted.module, "fc.weight")));

  AppliedPlan alone = ApplyBits(network, {1, 1, 32}, {}, {}, {});
  CHECK(CorrectNetwork(network, alone, options, data.images, data, Normalizer({}), SilentSink()).chosen.outputs ==
        "off");
}

TEST_CASE("'auto' fits the outputs on top of the best batch norm when the calibration loss falls") {
  const Network network = ConvWithBias();
  const Dataset data = RandomImages(network, 400);
  AppliedPlan corrected = ApplyBits(network, {1, 1, 1}, {}, {}, {});
  const auto correction =
      CorrectNetwork(network, corrected, Outputs("auto"), data.images, data, Normalizer({}), SilentSink());
  REQUIRE(correction.candidates.size() == 2);
  CHECK(correction.candidates[0].method.outputs == "off");
  CHECK(correction.candidates[1].method.outputs == "fit");
  CHECK(correction.candidates[1].nll < correction.candidates[0].nll);
  CHECK(correction.chosen.outputs == "fit");
}

TEST_CASE("a layer that sees rows first, images second is fitted to the same images as one that sees images first") {
  const Network images_first = testing::ImagesFirst();
  const Dataset data = RandomImages(images_first, 300);  // more than a minibatch of statistics
  const std::vector<int> bits = {2, 2};
  const auto corrected = [&](const Network& network) {
    AppliedPlan applied = ApplyBits(network, bits, {}, {}, {});
    (void)CorrectNetwork(network, applied, Outputs("fit"), data.images, data, Normalizer({}), SilentSink());
    return applied.module;
  };
  const torch::jit::Module expected = corrected(images_first);
  for (const Network& network : {testing::RowsFirst(), testing::RowsFirstMerged()}) {
    const torch::jit::Module module = corrected(network);
    for (const char* path : {"emb.weight", "emb.bias", "fc.weight", "fc.bias"}) {
      INFO(path);
      CHECK(torch::allclose(GetTensor(module, path), GetTensor(expected, path), 1e-3, 1e-4));
    }
  }
}

TEST_CASE("a layer that gets other rows in the quantized network than in the float one is not fitted") {
  torch::manual_seed(5);
  torch::jit::Module module("routed");
  module.register_parameter("first", torch::randn({6, 64}), false);
  module.register_parameter("expert", torch::randn({6, 6}), false);
  module.register_parameter("last", torch::randn({4, 6}), false);
  module.define(R"(
def forward(self, x):
  h = torch.linear(x.flatten(1), self.first)
  chosen = h[:, 0] > 0
  rows = torch.linear(h[chosen], self.expert)
  h[chosen] = rows
  return torch.linear(torch.relu(h), self.last)
)");
  const Network network = DescribeNetwork(module, "routed", {1, 8, 8});
  REQUIRE(network.layers.size() == 3);
  const Dataset data = RandomImages(network, 100);
  AppliedPlan fitted = ApplyBits(network, {1, 1, 1}, {}, {}, {});
  const torch::Tensor expert = GetTensor(fitted.module, "expert").clone();
  (void)CorrectNetwork(network, fitted, Outputs("fit"), data.images, data, Normalizer({}), SilentSink());
  CHECK(torch::equal(GetTensor(fitted.module, "expert"), expert));
}

}  // namespace
}  // namespace bitplan
