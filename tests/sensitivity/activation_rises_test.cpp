#include "sensitivity/activation_rises.h"

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

TEST_CASE("the predicted rise of rounded activations is the divergence that they cause") {
  const Network network = testing::ConvBatchNorm();
  const Dataset data = testing::RandomImages(network, 2048);
  const Normalizer normalizer{DataOptions{}};
  const QuantizerOptions quantizer;
  SensitivityOptions options;
  options.samples = 2048;
  const SensitivityInputs inputs{.network = network,
                                 .posterior = nullptr,
                                 .train = data,
                                 .normalizer = normalizer,
                                 .quantizer = quantizer,
                                 .options = options,
                                 .widths = {4},
                                 .seed = 1};
  const std::string before = ModelHash(network.module);
  const ActivationRises rises = MeasureActivationRises(inputs, {3, 4, 6, 8}, "mse", SilentSink());
  CHECK(ModelHash(network.module) == before);
  CHECK(rises.tensors == std::vector<std::size_t>({0, 1, 2}));
  for (std::size_t l = 0; l < 3; ++l) {
    for (std::size_t k = 0; k < 4; ++k) {
      std::vector<int> bits(3, 32);
      bits[l] = rises.widths[k];
      AppliedPlan applied = ApplyBits(network, {32, 32, 32}, {}, {}, {});
      QuantizeActivations(network, applied, bits, "mse", data.images, SilentSink());
      const double measured = DivergenceOf(applied.module, network, data.images);
      INFO("layer " << l << " at " << bits[l] << ": predicted " << rises.loss_rise[l][k] << ", measured " << measured);
      CHECK(rises.loss_rise[l][k] > 0.6 * measured);
      CHECK(rises.loss_rise[l][k] < 1.6 * measured);
      if (k > 0) CHECK(rises.loss_rise[l][k] < rises.loss_rise[l][k - 1]);
    }
  }
}

}  // namespace
}  // namespace bitplan
