#include "bitplan/ptq/compensate.h"

#include "bitplan/models/batch_norm.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "bitplan/ptq/correction.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

QuantizerOptions Options(const std::string& batch_norm) {
  QuantizerOptions options;
  options.rounding = "compensated";
  options.batch_norm = batch_norm;
  options.output_correction = "off";
  return options;
}

// Outputs of the first layer.
torch::Tensor FirstOutputs(const Network& network, torch::jit::Module module, const torch::Tensor& images) {
  torch::Tensor outputs;
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output =
                     [&](std::size_t layer, const torch::Tensor& output) {
                       if (layer == 0) outputs = output.clone();
                     },
                 .on_batch_norm_input = nullptr});
  module.forward({images});
  return outputs;
}

// One convolution with everything that a window can have.
Network Windowed(std::uint64_t seed = 7) {
  torch::manual_seed(seed);
  torch::jit::Module module("windowed");
  module.register_parameter("weight", torch::randn({8, 2, 3, 3}) * 0.3, false);
  module.define(R"(
def forward(self, x):
  return torch.mean(torch.conv2d(x, self.weight, None, [2, 1], [1, 2], [1, 2], 2), [2, 3])
)");
  module.eval();
  return DescribeNetwork(module, "windowed", {4, 9, 10});
}

TEST_CASE("outputs come closer to those of the float network, also on images not seen") {
  for (const Network& network : {ConvBatchNorm(), Windowed()}) {
    // Neighbouring pixels of smooth images are correlated: there is something to cancel.
    const auto smooth = [&](std::uint64_t seed) {
      return torch::avg_pool2d(RandomImages(network, 200, seed).images.to(torch::kFloat32), {3, 3}, {1, 1}, {1, 1});
    };
    const torch::Tensor images = smooth(11), others = smooth(12);
    const std::vector<int> bits(network.layers.size(), 2);
    AppliedPlan nearest = ApplyBits(network, bits, {}, Options("off"), {});
    AppliedPlan compensated = ApplyBits(network, bits, {}, Options("off"), {});
    CompensateRounding(network, compensated, bits, Options("off"), images, SilentSink());
    const torch::Tensor target = FirstOutputs(network, network.module, others);
    const auto error = [&](const torch::jit::Module& module) {
      return (FirstOutputs(network, module, others) - target).square().mean().item<double>();
    };
    INFO(network.name);
    CHECK(error(compensated.module) < 0.9 * error(nearest.module));
  }
}

// A residual block between two convolutions; `sum` of the way through the block, y, and the way around it, x.
Network Residual(const std::string& sum, bool batch_norm) {
  torch::manual_seed(9);
  torch::jit::Module module("residual");
  for (const char* name : {"a", "b", "c"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn({8, 8, 3, 3}) * 0.15, false);
    module.register_module(name, child);
  }
  torch::jit::Module norm("bn");
  norm.register_parameter("weight", torch::rand(8) * 0.5 + 0.5, false);
  norm.register_parameter("bias", torch::randn(8) * 0.1, false);
  norm.register_buffer("running_mean", torch::randn(8) * 0.1);
  norm.register_buffer("running_var", torch::rand(8) * 0.5 + 0.5);
  module.register_module("bn", norm);
  const std::string after = batch_norm ? "torch.batch_norm(y, self.bn.weight, self.bn.bias, self.bn.running_mean, "
                                         "self.bn.running_var, False, 0.1, 1e-5, False)"
                                       : "y";
  module.define(
      "def forward(self, x):\n  x = torch.relu(torch.conv2d(x, self.a.weight, None, 1, 1))\n"
      "  y = torch.relu(torch.conv2d(x, self.b.weight, None, 1, 1))\n  y = torch.conv2d(y, self.c.weight, None, 1, 1)\n"
      "  y = " +
      after + "\n  return torch.relu(" + sum + ").flatten(1)\n");
  module.eval();
  return DescribeNetwork(module, "residual", {8, 6, 6});
}

TEST_CASE("the layer that ends a residual block takes back what the way around it lost") {
  for (const bool batch_norm : {false, true}) {
    // The same arithmetic, in which no sum is to be seen.
    const Network seen = Residual("y + x", batch_norm), hidden = Residual("y - (-x)", batch_norm);
    const auto smooth = [&](std::uint64_t seed) {
      return torch::avg_pool2d(RandomImages(seen, 600, seed).images, {3, 3}, {1, 1}, {1, 1});
    };
    const torch::Tensor images = smooth(11), others = smooth(12);
    const std::vector<int> bits = {1, 8, 4};
    const auto error = [&](const Network& network) {
      const QuantizerOptions options = Options(batch_norm ? "transfer" : "off");
      AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
      CompensateRounding(network, applied, bits, options, images, SilentSink());
      (void)CorrectNetwork(network, applied, options, images, RandomImages(network, 10), Normalizer({}), SilentSink());
      const torch::NoGradGuard no_grad;
      return (RunForward(applied.module, others) - RunForward(network.module, others)).square().mean().item<double>();
    };
    INFO((batch_norm ? "with" : "without") << " batch norm: " << error(seen) << " against " << error(hidden));
    CHECK(error(seen) < 0.95 * error(hidden));
  }
}

TEST_CASE("corrections take from rounding what a pass of their own would give") {
  for (const Network& network : {ConvBatchNorm(), Residual("y + x", true)}) {
    const Dataset data = RandomImages(network, 300);
    const std::vector<int> bits(network.layers.size(), 2);
    for (const std::string outputs : {"off", "fit", "auto"}) {
      QuantizerOptions options = Options(outputs == "auto" ? "auto" : "transfer");
      options.output_correction = outputs;
      const auto corrected = [&](bool anew) {
        AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
        CompensateRounding(network, applied, bits, options, data.images, SilentSink());
        REQUIRE(applied.transferred != nullptr);
        if (anew) applied.transferred.reset();
        (void)CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink());
        CHECK(applied.transferred == nullptr);
        return ModelHash(applied.module);
      };
      INFO(network.name << ", outputs " << outputs);
      CHECK(corrected(false) == corrected(true));
    }
  }
}

// A layer whose outputs can be fitted in front of a batch norm that sees them behind a relu, and one in float.
Network FittedBeforeBatchNorm() {
  torch::manual_seed(12);
  torch::jit::Module module("fitted_before");
  for (const char* name : {"a", "fc"}) {
    torch::jit::Module child(name);
    const bool conv = *name == 'a';
    child.register_parameter("weight", conv ? torch::randn({8, 8, 3, 3}) * 0.15 : torch::randn({4, 288}) * 0.1, false);
    child.register_parameter("bias", torch::randn(conv ? 8 : 4) * 0.1, false);
    module.register_module(name, child);
  }
  torch::jit::Module norm("bn");
  norm.register_parameter("weight", torch::rand(8) + 0.5, false);
  norm.register_parameter("bias", torch::randn(8) * 0.1, false);
  norm.register_buffer("running_mean", torch::randn(8) * 0.1);
  norm.register_buffer("running_var", torch::rand(8) * 0.5 + 0.5);
  module.register_module("bn", norm);
  module.define(R"(
def forward(self, x):
  y = torch.relu(torch.conv2d(x, self.a.weight, self.a.bias, 1, 1))
  y = torch.batch_norm(y, self.bn.weight, self.bn.bias, self.bn.running_mean, self.bn.running_var, False, 0.1, 1e-5, False)
  return torch.addmm(self.fc.bias, y.flatten(1), self.fc.weight.t())
)");
  module.eval();
  return DescribeNetwork(module, "fitted_before", {8, 6, 6});
}

TEST_CASE("a batch norm behind a layer that is fitted has its statistics taken of the fitted outputs") {
  const Network network = FittedBeforeBatchNorm();
  REQUIRE(network.layers.size() == 2);
  const Dataset data = RandomImages(network, 300);
  const std::vector<int> bits = {1, 16};
  QuantizerOptions options = Options("transfer");
  options.output_correction = "fit";
  const auto corrected = [&](bool anew) {
    AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
    CompensateRounding(network, applied, bits, options, data.images, SilentSink());
    if (anew) applied.transferred.reset();
    CHECK(CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink()).chosen.outputs ==
          "fit");
    return ModelHash(applied.module);
  };
  CHECK(corrected(false) == corrected(true));
}

TEST_CASE("a plan that rounds no layer leaves the network as it is") {
  const Network network = Residual("y + x", true);
  const Dataset data = RandomImages(network, 50);
  QuantizerOptions options = Options("transfer");
  options.output_correction = "fit";
  FloatSide reference(network, data.images, /*several=*/true);
  for (const std::vector<int>& bits : {std::vector<int>{16, 16, 16}, {2, 2, 2}, {16, 16, 16}}) {
    AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
    CompensateRounding(network, applied, bits, options, reference, SilentSink());
    (void)CorrectNetwork(network, applied, options, reference, data, Normalizer({}), SilentSink());
    if (bits[0] < 16) continue;
    const torch::NoGradGuard no_grad;
    CHECK(
        torch::allclose(RunForward(applied.module, data.images), RunForward(network.module, data.images), 1e-4, 1e-5));
  }
}

TEST_CASE("plans that share the float side come out as they do alone") {
  const Network network = Residual("y + x", true);
  const Dataset data = RandomImages(network, 5000);  // more positions than are drawn
  QuantizerOptions options = Options("transfer");
  options.output_correction = "fit";
  FloatSide shared(network, data.images, /*several=*/true);
  const auto applied = [&](const std::vector<int>& bits, FloatSide& reference) {
    AppliedPlan plan = ApplyBits(network, bits, {}, options, {});
    CompensateRounding(network, plan, bits, options, reference, SilentSink());
    (void)CorrectNetwork(network, plan, options, reference, data, Normalizer({}), SilentSink());
    return ModelHash(plan.module);
  };
  for (const std::vector<int>& bits : {std::vector<int>{2, 2, 2}, {2, 16, 1}}) {
    FloatSide own(network, data.images);
    const std::string alone = applied(bits, own);
    CHECK(applied(bits, shared) == alone);
    CHECK(applied(bits, own) == alone);  // which has given its samples away
  }
}

// x w + 3 x', the term beside the product added by the same operation or by another one.
Network WithTerm(const std::string& answer) {
  torch::manual_seed(10);
  torch::jit::Module module("with_term");
  module.register_parameter("w", torch::randn({16, 8}) * 0.3, false);
  module.define("def forward(self, x):\n  r = 3.0 * x[:, :8]\n  return " + answer + "\n");
  module.eval();
  return DescribeNetwork(module, "with_term", {16});
}

TEST_CASE("what an operation adds to the product of weights and inputs is no aim of the rounding") {
  const Network together = WithTerm("torch.addmm(r, x, self.w)"), apart = WithTerm("torch.matmul(x, self.w) + r");
  REQUIRE(together.layers.size() == 1);
  torch::manual_seed(11);
  const torch::Tensor images = torch::randn({400, 16}).matmul(torch::randn({16, 16}));  // correlated inputs
  const auto rounded = [&](const Network& network) {
    AppliedPlan applied = ApplyBits(network, {2}, {}, Options("off"), {});
    CompensateRounding(network, applied, {2}, Options("off"), images, SilentSink());
    return GetTensor(applied.module, "w").clone();
  };
  CHECK(rounded(together).ne(rounded(apart)).sum().item<std::int64_t>() == 0);
}

TEST_CASE("a layer that no image reaches is rounded to the nearest levels, and no correction touches it") {
  const Network network = testing::RareBranch(1.0);
  const Dataset data = RandomImages(network, 300);
  const torch::Tensor images = data.images.index_select(0, data.images.flatten(1).mean(1).le(1.0).nonzero().squeeze(1));
  QuantizerOptions options = Options("off");
  options.output_correction = "fit";
  for (const std::string range : {"mse", "output"}) {
    options.range = range;
    const std::vector<int> bits(network.layers.size(), 2);
    std::vector<QuantizerEvidence> evidence(network.layers.size());
    const auto inputs = SampleLayerInputs(network, images, 256, 1);
    CHECK_FALSE(inputs[2].defined());
    if (range == "output") {
      for (std::size_t l = 0; l < evidence.size(); ++l) evidence[l].inputs = inputs[l];
    }
    const AppliedPlan nearest = ApplyBits(network, bits, {}, options, evidence);
    AppliedPlan compensated = ApplyBits(network, bits, {}, options, evidence);
    CompensateRounding(network, compensated, bits, options, images, SilentSink());
    (void)CorrectNetwork(network, compensated, options, images, data, Normalizer({}), SilentSink());
    CHECK(torch::equal(GetTensor(compensated.module, "rare.weight"), GetTensor(nearest.module, "rare.weight")));
    CHECK(GetTensor(nearest.module, "rare.weight").abs().max().item<float>() > 0.0F);
    CHECK_FALSE(torch::equal(GetTensor(compensated.module, "fc1.weight"), GetTensor(nearest.module, "fc1.weight")));
  }
}

TEST_CASE("the window of a convolution is what the operation was called with") {
  const Network network = Windowed();
  REQUIRE(network.layers.size() == 1);
  REQUIRE(network.layers[0].window);
  CHECK(network.layers[0].window->stride == std::vector<std::int64_t>{2, 1});
  CHECK(network.layers[0].window->padding == std::vector<std::int64_t>{1, 2});
  CHECK(network.layers[0].window->dilation == std::vector<std::int64_t>{1, 2});
  CHECK(network.layers[0].window->groups == 2);
}

TEST_CASE(
    "a plan that states what rounding counted on is rounded the same, whichever correction was chosen in the end") {
  const Network network = ConvBatchNorm();
  const torch::Tensor images = Normalizer({}).Apply(RandomImages(network, 100).images);
  const std::vector<int> bits = {2, 2, 2};
  const auto rounded = [&](const std::string& batch_norm, const std::string& centring) {
    QuantizerOptions options = Options(batch_norm);
    options.centring = centring;
    AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
    CompensateRounding(network, applied, bits, options, images, SilentSink());
    return ModelHash(applied.module);
  };
  CHECK(rounded("auto", "auto") == rounded("off", "both"));
  CHECK(rounded("off", "auto") == rounded("auto", "outputs"));
  CHECK(rounded("auto", "auto") != rounded("off", "auto"));
}

TEST_CASE("the mean of an output counts unless a correction that is counted on takes it away") {
  const Network network = ConvBatchNorm();  // conv1 and conv2 feed a batch norm; fc feeds none and has no bias
  CHECK(FeedsBatchNorm(network) == std::vector<bool>{true, true, false});
  // An operation in place leaves the tensor where it was, and yet the batch norm does not see the layer's outputs.
  const Network in_place = ConvBatchNorm(7, "torch.relu_(torch.conv2d(x, self.conv1.weight))");
  CHECK(FeedsBatchNorm(in_place) == std::vector<bool>{false, true, false});
  QuantizerOptions options;
  CHECK(CentredLayers(network, options) == std::vector<bool>{true, true, false});
  options.batch_norm = "off";
  CHECK(CentredLayers(network, options) == std::vector<bool>{false, false, false});
  options.centring = "batch-norm";
  CHECK(CentredLayers(network, options) == std::vector<bool>{true, true, false});
}

TEST_CASE("the mean of an output that rounding does not look at goes into the bias at once") {
  const Network network = testing::ImagesFirst();
  const torch::Tensor images = RandomImages(network, 200).images + 0.5;
  QuantizerOptions options;
  options.rounding = "compensated";
  options.output_correction = "auto";
  REQUIRE(CentredLayers(network, options) == std::vector<bool>{true, true});
  const auto error_of_mean = [&](const AppliedPlan& applied) {
    const torch::NoGradGuard no_grad;
    const torch::Tensor wanted = RunForward(network.module, images), now = RunForward(applied.module, images);
    return ((now - wanted).mean(0) / wanted.std(0)).abs().max().item<double>();
  };
  AppliedPlan applied = ApplyBits(network, {2, 2}, {}, options, {});
  CHECK(error_of_mean(applied) > 0.1);
  CompensateRounding(network, applied, {2, 2}, options, images, SilentSink());
  CHECK(error_of_mean(applied) < 0.05);
}

TEST_CASE("layers left in float and the statistics of batch norms stay what they were") {
  const Network network = ConvBatchNorm();
  const torch::Tensor images = Normalizer({}).Apply(RandomImages(network, 100).images);
  AppliedPlan applied = ApplyBits(network, {2, 16, 1}, {}, Options("transfer"), {});
  CompensateRounding(network, applied, {2, 16, 1}, Options("transfer"), images, SilentSink());
  CHECK(torch::equal(GetTensor(applied.module, network.layers[1].parameter),
                     GetTensor(network.module, network.layers[1].parameter)));
  for (const BatchNorm& norm : network.batch_norms) {
    CHECK(torch::equal(GetTensor(applied.module, norm.running_mean), GetTensor(network.module, norm.running_mean)));
    CHECK(torch::equal(GetTensor(applied.module, norm.running_var), GetTensor(network.module, norm.running_var)));
  }
}

TEST_CASE("rounding looks at the same images whatever the order of rows and images") {
  const Network images_first = testing::ImagesFirst();
  const Dataset data = RandomImages(images_first, 40);
  const std::vector<int> bits = {2, 3};
  const auto rounded = [&](const Network& network) {
    AppliedPlan applied = ApplyBits(network, bits, {}, Options("off"), {});
    CompensateRounding(network, applied, bits, Options("off"), data.images, SilentSink());
    return applied.module;
  };
  const torch::jit::Module expected = rounded(images_first);
  for (const Network& network : {testing::RowsFirst(), testing::RowsFirstMerged()}) {
    const torch::jit::Module module = rounded(network);
    CHECK(torch::allclose(GetTensor(module, "emb.weight"), GetTensor(expected, "emb.weight"), 1e-3, 1e-4));
    CHECK(torch::allclose(GetTensor(module, "fc.weight"), GetTensor(expected, "fc.weight"), 1e-3, 1e-4));
  }
}

}  // namespace
}  // namespace bitplan
