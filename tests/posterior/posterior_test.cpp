#include "bitplan/posterior/posterior.h"

#include <filesystem>
#include <fstream>

#include "bitplan/core/error.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::RandomImages;
using testing::RareBranch;
using testing::SoftmaxRegression;

// Diagonal Fisher information of softmax regression in closed form: E[p_c (1 - p_c) x_j^2].
torch::Tensor ExactFisher(const Network& network, const Dataset& data) {
  torch::jit::Module module = network.module;
  const torch::Tensor p = module.forward({data.images}).toTensor().softmax(1);
  const torch::Tensor x = data.images.flatten(1);
  return torch::matmul((p * (1 - p)).t(), x.square()) / data.size();
}

PosteriorOptions Options(int samples, int batch) {
  PosteriorOptions options;
  options.samples = samples;
  options.batch = batch;
  return options;
}

TEST_CASE("laplace information is the Fisher information, for any batch size") {
  const Network network = SoftmaxRegression(5, 3, 0.7);
  const Dataset data = RandomImages(network, 20000);
  const torch::Tensor exact = ExactFisher(network, data);
  for (const int batch : {1, 16}) {
    const Posterior posterior =
        EstimatePosterior(network, data, Normalizer({}), Options(batch == 1 ? 4000 : 20000, batch), 1, SilentSink());
    const torch::Tensor ratio = posterior.Information(0) / exact;
    INFO(ratio);
    CHECK(ratio.min().item<double>() > 0.8);
    CHECK(ratio.max().item<double>() < 1.25);
    CHECK(ratio.mean().item<double>() == Approx(1.0).margin(0.04));
  }
}

TEST_CASE("the precision is N F + 1/s^2, with the prior from the weights unless it is given") {
  const Network network = SoftmaxRegression(4, 3, 0.5);
  const Dataset data = RandomImages(network, 500);
  PosteriorOptions options = Options(500, 10);
  const Posterior by_weights = EstimatePosterior(network, data, Normalizer({}), options, 1, SilentSink());
  const torch::Tensor weight = GetTensor(network.module, "fc.weight");
  CHECK(by_weights.layers[0].prior_sigma == Approx(weight.square().mean().sqrt().item<double>()));
  options.prior_sigma = 0.01;
  const Posterior narrow = EstimatePosterior(network, data, Normalizer({}), options, 1, SilentSink());
  CHECK((narrow.layers[0].sigma <= 0.01001).all().item<bool>());
  // What the data said does not depend on the prior.
  CHECK(torch::allclose(narrow.Information(0), by_weights.Information(0), 1e-3, 1e-5));
  CHECK(torch::equal(by_weights.layers[0].mean, weight));
}

TEST_CASE("inputs that never vary carry no information about their weights") {
  const Network network = SoftmaxRegression(4, 3, 0.5);
  Dataset data = RandomImages(network, 300);
  data.images.select(3, 2).zero_();
  const Posterior posterior = EstimatePosterior(network, data, Normalizer({}), Options(300, 8), 1, SilentSink());
  CHECK(posterior.Information(0).select(1, 2).abs().max().item<double>() < 1e-8);
  CHECK(posterior.Information(0).select(1, 1).min().item<double>() > 1e-4);
}

TEST_CASE("the same seed gives the same posterior, another seed another one") {
  const Network network = SoftmaxRegression(4, 3, 0.5);
  const Dataset data = RandomImages(network, 200);
  for (const char* estimator : {"laplace", "svi"}) {
    PosteriorOptions options = Options(100, 10);
    options.estimator = estimator;
    const auto hash = [&](std::uint64_t seed) {
      return EstimatePosterior(network, data, Normalizer({}), options, seed, SilentSink()).Hash();
    };
    CHECK(hash(1) == hash(1));
    CHECK(hash(1) != hash(2));
  }
}

TEST_CASE("estimation leaves the network as it was") {
  const Network network = SoftmaxRegression(4, 3, 0.5);
  const Dataset data = RandomImages(network, 100);
  const torch::Tensor before = GetTensor(network.module, "fc.weight").clone();
  for (const char* estimator : {"laplace", "svi"}) {
    PosteriorOptions options = Options(100, 10);
    options.estimator = estimator;
    options.free_mean = true;
    (void)EstimatePosterior(network, data, Normalizer({}), options, 1, SilentSink());
    CHECK(torch::equal(GetTensor(network.module, "fc.weight"), before));
    CHECK_FALSE(GetTensor(network.module, "fc.weight").requires_grad());
  }
}

TEST_CASE("svi repairs the widths of a poor start") {
  // With the means held the best sigma obeys 1/sigma^2 = N E_q[curvature] + 1/s^2, which for N this large is what
  // laplace finds from all images. Laplace from eight images, the start of the fit, is far from it.
  const Network network = SoftmaxRegression(3, 2, 0.4);
  const Dataset data = RandomImages(network, 4000);
  const Posterior reference = EstimatePosterior(network, data, Normalizer({}), Options(4000, 10), 1, SilentSink());
  const Posterior start = EstimatePosterior(network, data, Normalizer({}), Options(8, 8), 1, SilentSink());
  PosteriorOptions options = Options(8, 8);
  options.estimator = "svi";
  options.epochs = 2000;
  options.learning_rate = 0.04;
  const Posterior fitted = EstimatePosterior(network, data, Normalizer({}), options, 1, SilentSink());
  const auto distance = [&](const Posterior& posterior) {
    return (posterior.layers[0].sigma / reference.layers[0].sigma).log().abs().mean().item<double>();
  };
  INFO("start " << distance(start) << " fitted " << distance(fitted));
  CHECK(distance(fitted) < 0.5 * distance(start));
  CHECK(distance(fitted) < 0.25);
  CHECK(torch::equal(fitted.layers[0].mean, reference.layers[0].mean));
}

TEST_CASE("a posterior survives the file, and a damaged file is a data error") {
  const Network network = SoftmaxRegression(4, 3, 0.5);
  const Dataset data = RandomImages(network, 100);
  const Posterior posterior = EstimatePosterior(network, data, Normalizer({}), Options(100, 10), 1, SilentSink());
  const auto file = std::filesystem::temp_directory_path() / "bitplan_posterior_test.pt";
  SavePosterior(posterior, file);
  CHECK(LoadPosterior(file).Hash() == posterior.Hash());
  std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  try {
    (void)LoadPosterior(file);
    FAIL("a damaged file was accepted");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kData);
  }
  std::filesystem::remove(file);
  CHECK_THROWS_WITH(LoadPosterior(file), ContainsSubstring("does not exist"));
}

TEST_CASE("an unknown estimator names the nearest one") {
  CHECK_THROWS_WITH(FindPosteriorEstimator("laplas"), ContainsSubstring("nearest: laplace"));
}

TEST_CASE("a minibatch that reaches a layer with no image says nothing about it") {
  const Network network = RareBranch(0.8);  // about one image in twenty
  REQUIRE(network.layers.size() == 3);
  const Dataset data = RandomImages(network, 2000);
  const auto information = [&](int batch) {
    return EstimatePosterior(network, data, Normalizer({}), Options(2000, batch), 1, SilentSink());
  };
  const Posterior few = information(8), all = information(50);
  for (std::size_t l = 0; l < 3; ++l) {
    INFO(network.layers[l].name);
    const double ratio = (few.Information(l).sum() / all.Information(l).sum()).item<double>();
    CHECK(ratio > 0.5);
    CHECK(ratio < 2.0);
  }
}

TEST_CASE("a layer that no training image reaches is named") {
  const Network network = RareBranch(8.0);
  const Dataset data = RandomImages(network, 100);
  CHECK_THROWS_WITH(EstimatePosterior(network, data, Normalizer({}), Options(100, 8), 1, SilentSink()),
                    ContainsSubstring("layer rare of rare-branch runs for none of the first 100 training images"));
}

TEST_CASE("an image for which the network gives no numbers is named as its file counts, and no posterior comes of it") {
  torch::manual_seed(3);
  torch::jit::Module module("standardizing");
  module.register_parameter("weight", torch::randn({3, 8}), false);
  module.define(
      "def forward(self, x):\n"
      "    f = x.flatten(1)\n"
      "    return torch.linear((f - f.mean(1, keepdim=True)) / f.std(1, keepdim=True), self.weight)\n");
  const Network network = DescribeNetwork(module, "standardizing", {1, 1, 8});
  Dataset published{"npy/train", torch::randn({100, 1, 1, 8}), torch::randint(0, 3, {100}, torch::kInt64), 3};
  published.images[40].zero_();
  const Dataset train = published.Select(torch::arange(99, 9, -1));  // row 59 is image 40
  for (const std::string estimator : {"laplace", "svi"}) {
    INFO(estimator);
    CHECK_THROWS_WITH(
        EstimatePosterior(network, train, Normalizer{DataOptions{}}, {.estimator = estimator}, 1, SilentSink()),
        ContainsSubstring("image 40 of npy/train") && ContainsSubstring("not finite"));
  }
}

TEST_CASE("a layer of weights next to nothing has a posterior") {
  Network network = testing::SoftmaxRegression(6, 3, 1e-30);
  const Dataset data = testing::RandomImages(network, 64);
  const Posterior posterior = EstimatePosterior(network, data, Normalizer{DataOptions{}}, {}, 1, SilentSink());
  CHECK(posterior.layers[0].sigma.gt(0.0).all().item<bool>());
  CHECK(posterior.Information(0).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace bitplan
