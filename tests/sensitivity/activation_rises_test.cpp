#include "sensitivity/activation_rises.h"

#include <cmath>

#include "bitplan/posterior/posterior.h"
#include "bitplan/ptq/activations.h"
#include "support/networks.h"

namespace bitplan {
namespace {

// Mean divergence of the predictions, nats per image.
double DivergenceOf(const torch::jit::Module& module, const Network& network, const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor exact = torch::log_softmax(RunForward(network.module, images), 1);
  const torch::Tensor now = torch::log_softmax(RunForward(module, images), 1);
  return (exact.exp() * (exact - now)).sum(1).mean().item<double>();
}

// Images and options that inputs refer to.
struct Setting {
  Setting(const Network& network, std::int64_t images) : data(testing::RandomImages(network, images)) {
    quantizer.range = "mse";
    options.samples = static_cast<int>(images);
  }

  [[nodiscard]] SensitivityInputs On(const Network& network, const std::vector<int>& widths,
                                     const Posterior* posterior = nullptr) const {
    return {.network = network,
            .posterior = posterior,
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

TEST_CASE("the predicted rise of rounded activations is the divergence that they cause") {
  const Network network = testing::ConvBatchNorm();
  const Setting setting(network, 2048);
  const SensitivityInputs inputs = setting.On(network, {4});
  const std::string before = ModelHash(network.module);
  const ActivationRises rises = MeasureActivationRises(inputs, {3, 4, 6, 8}, "mse", SilentSink());
  CHECK(ModelHash(network.module) == before);
  CHECK(rises.tensors == std::vector<std::size_t>({0, 1, 2}));
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t k = 0; k < 4; ++k) {
      std::vector<int> bits(3, 32);
      bits[l] = rises.widths[k];
      AppliedPlan applied = ApplyBits(network, {32, 32, 32}, {}, {}, {});
      QuantizeActivations(network, applied, bits, "mse", setting.data.images, SilentSink());
      const double measured = DivergenceOf(applied.module, network, setting.data.images);
      INFO("layer " << l << " at " << bits[l] << ": predicted " << rises.loss_rise[l][k] << ", measured " << measured);
      CHECK(rises.loss_rise[l][k] > 0.6 * measured);
      CHECK(rises.loss_rise[l][k] < 1.6 * measured);
      if (k > 0) CHECK(rises.loss_rise[l][k] < rises.loss_rise[l][k - 1]);
    }
  }
}

TEST_CASE("weights and activations in one pass have the rises of two, and what they cost together is measured") {
  const Network network = testing::ConvBatchNorm();
  const Setting setting(network, 2048);
  PosteriorOptions posterior_options;
  posterior_options.samples = 512;
  const Posterior posterior =
      EstimatePosterior(network, setting.data, setting.normalizer, posterior_options, 1, SilentSink());
  SensitivityInputs inputs = setting.On(network, {1, 2, 4}, &posterior);
  const std::vector<int> widths = {2, 3, 4};
  const AllocationProblem alone = MeasureSensitivity(inputs, SilentSink());
  const ActivationRises apart = MeasureActivationRises(inputs, widths, "mse", SilentSink());
  ActivationMeter meter(inputs, widths, "mse");
  inputs.activations = &meter;
  const AllocationProblem together = MeasureSensitivity(inputs, SilentSink());
  const ActivationRises rises = meter.Finish(inputs.widths);
  CHECK(apart.together.empty());
  REQUIRE(rises.together.size() == 3);
  int counted = 0;
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t k = 0; k < 3; ++k) {
      CHECK(together.loss_rise[l][k] == Approx(alone.loss_rise[l][k]).epsilon(1e-6));
      CHECK(rises.loss_rise[l][k] == Approx(apart.loss_rise[l][k]).epsilon(1e-6));
      for (std::size_t a = 0; a < 3; ++a) {
        // Cauchy and Schwarz: no more than twice the geometric mean of both.
        const double most = 2.0 * std::sqrt(alone.loss_rise[l][k] * rises.loss_rise[l][a]);
        CHECK(std::abs(rises.together[l][k][a]) <= 1.01 * most);
        counted += rises.together[l][k][a] != 0.0 ? 1 : 0;
      }
    }
  }
  // At four bits both are small, and rounding both costs the sum.
  for (std::size_t l = 0; l < 3; ++l) {
    const auto divergence = [&](int weight_bits, int activation_bits) {
      std::vector<int> bits(3, 32), activations(3, 32);
      bits[l] = weight_bits;
      activations[l] = activation_bits;
      AppliedPlan applied = ApplyBits(network, bits, {}, setting.quantizer, {});
      QuantizeActivations(network, applied, activations, "mse", setting.data.images, SilentSink());
      return DivergenceOf(applied.module, network, setting.data.images);
    };
    CHECK(divergence(4, 4) == Approx(divergence(4, 32) + divergence(32, 4)).epsilon(0.1));
    CHECK(rises.together[l][2][2] == 0.0);
  }
  // Where it is told from chance, it has the right sign: rounding both costs more than the sum.
  CHECK((counted > 0 && counted < 14));
  CHECK(rises.together[0][0][0] > 0.0);
}

TEST_CASE("a layer that reads one tensor twice does not count it twice, and a tensor of the model keeps its flag") {
  const auto network_of = [](const std::string& body) {
    torch::manual_seed(4);
    torch::jit::Module module("Test");
    module.register_parameter("w", torch::randn({4, 6}) * 0.5, false);
    module.register_buffer("rows", torch::randn({1, 6}));
    module.register_attribute("training", c10::BoolType::get(), false);
    module.define("def forward(self, x):\n" + body);
    return DescribeNetwork(module, "twice", {6});
  };
  const Network once = network_of("  return torch.linear(x, self.w) * 2.0\n");
  const Network twice = network_of("  return torch.linear(x, self.w) + torch.linear(x, self.w)\n");
  const Network own = network_of("  return torch.linear(x, self.w) + torch.linear(self.rows, self.w)\n");
  const Setting setting(once, 512);
  const auto rise = [&](const Network& network) {
    return MeasureActivationRises(setting.On(network, {4}), {2, 4}, "mse", SilentSink()).loss_rise[0][0];
  };
  CHECK(rise(twice) == Approx(rise(once)).epsilon(1e-3));
  CHECK(rise(own) > 0.0);
  CHECK(!GetTensor(own.module, "rows").requires_grad());
}

}  // namespace
}  // namespace bitplan
