// The information about single weights of every kind of layer, against gradients taken image by image.
#include <torch/csrc/autograd/autograd.h>

#include "bitplan/posterior/posterior.h"
#include "support/layer_kinds.h"

namespace bitplan {
namespace {

// sum_c p_c (d log p_c / d w)^2 of every weight of the first layer, mean over the images.
torch::Tensor ExactInformation(const Network& network, const torch::Tensor& images) {
  torch::jit::Module module = network.module;
  const torch::Tensor weight = GetTensor(module, network.layers[0].parameter).set_requires_grad(true);
  torch::Tensor sum = torch::zeros_like(weight).detach();
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    const torch::Tensor log_p = module.forward({images.slice(0, i, i + 1)}).toTensor().log_softmax(1).squeeze(0);
    for (std::int64_t c = 0; c < log_p.size(0); ++c) {
      const torch::Tensor gradient = torch::autograd::grad({log_p[c]}, {weight}, {}, /*retain_graph=*/true)[0];
      sum.add_(gradient.square(), log_p[c].exp().item<double>());
    }
  }
  weight.set_requires_grad(false);
  return sum / images.size(0);
}

void CheckInformation(const Network& network, const torch::Tensor& images) {
  INFO(network.name);
  const torch::Tensor exact = ExactInformation(network, images);
  Dataset data;
  std::vector<std::int64_t> repeats(static_cast<std::size_t>(images.dim()), 1);
  repeats[0] = 150;  // every repetition is another draw of the estimate
  data.images = images.repeat(repeats);
  data.labels = torch::zeros({data.images.size(0)}, torch::kInt64);
  PosteriorOptions options;
  options.samples = static_cast<int>(data.size());
  options.batch = 4;
  Normalizer normalizer({});
  if (network.input_type == torch::kInt64) normalizer.KeepIntegers();
  const torch::Tensor found = EstimatePosterior(network, data, normalizer, options, 1, SilentSink()).Information(0);
  const torch::Tensor counts = exact.gt(1e-3 * exact.max());
  const torch::Tensor ratio = found.masked_select(counts) / exact.masked_select(counts);
  CHECK(ratio.min().item<double>() > 0.6);
  CHECK(ratio.max().item<double>() < 1.6);
  CHECK((found.sum() / exact.sum()).item<double>() == Approx(1.0).margin(0.06));
  CHECK(found.masked_select(exact.eq(0)).abs().sum().item<double>() < 1e-6);  // of words that never come
}

TEST_CASE("the information about a convolution of any kind is its Fisher information") {
  for (const testing::LayerKind& kind : testing::ConvolutionKinds()) {
    std::vector<std::int64_t> shape = kind.input;
    shape.insert(shape.begin(), 6);
    torch::manual_seed(2);
    CheckInformation(testing::KindNetwork(kind), torch::randn(shape));
  }
}

TEST_CASE("the information about an embedding is its Fisher information, and none about words that never come") {
  const Network network = testing::WordNetwork();
  CheckInformation(network, testing::Words(6).clamp_max(9).to(network.input_type));
}

}  // namespace
}  // namespace bitplan
