#include <cmath>
#include <limits>

#include "bitplan/core/error.h"
#include "bitplan/quantizers/quantizer.h"
#include "bitplan/sensitivity/displacements.h"
#include "bitplan/sensitivity/joint_plans.h"
#include "bitplan/sensitivity/network_oracle.h"
#include "bitplan/sensitivity/posterior_draws.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

struct MetricSetting {
  Network network = ConvBatchNorm();
  Dataset data = RandomImages(network, 128);
  Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  Posterior posterior;

  MetricSetting() {
    quantizer.batch_norm = "off";
    posterior = EstimatePosterior(network, data, normalizer, {.samples = 128, .batch = 4}, 1, SilentSink());
  }
  [[nodiscard]] SensitivityInputs Inputs(const std::string& metric, const std::vector<int>& widths) const {
    SensitivityOptions options;
    options.metric = metric;
    options.samples = 128;
    return {.network = network,
            .posterior = &posterior,
            .train = data,
            .normalizer = normalizer,
            .quantizer = quantizer,
            .options = options,
            .widths = widths,
            .seed = 1};
  }
};

std::vector<PosteriorDraw> Draws(const SensitivityInputs& inputs, int draws) {
  return MeasurePosteriorDraws(inputs, MeasureSensitivity(inputs, SilentSink()), {.samples = 128, .batch = 4}, draws,
                               /*scores=*/true, SilentSink());
}

TEST_CASE("every metric of the list falls with the bits and leaves the network as it was") {
  const MetricSetting setting;
  const std::string before = ModelHash(setting.network.module);
  for (const auto& metric : SensitivityMetrics()) {
    const AllocationProblem problem = MeasureSensitivity(setting.Inputs(metric.name, {2, 4, 8}), SilentSink());
    INFO(metric.name);
    REQUIRE(problem.loss_rise.size() == 3);
    for (const auto& rise : problem.loss_rise) {
      CHECK(rise[0] > rise[1]);
      CHECK(rise[1] > rise[2]);
      CHECK(rise[2] >= 0.0);
    }
    CHECK(ModelHash(setting.network.module) == before);
  }
}

TEST_CASE("replicates of a table scatter about it, more where fewer images were seen") {
  const MetricSetting setting;
  for (const std::string metric : {"posterior", "measured", "predictive"}) {
    const auto spread = [&](int samples) {
      auto inputs = setting.Inputs(metric, {2, 4});
      inputs.options.samples = samples;
      const AllocationProblem problem = MeasureSensitivity(inputs, SilentSink());
      REQUIRE(problem.replicates.size() >= 16);
      double mean = 0.0, square = 0.0;
      for (const auto& replicate : problem.replicates) {
        mean += replicate[1][0];
        square += replicate[1][0] * replicate[1][0];
      }
      const auto count = static_cast<double>(problem.replicates.size());
      mean /= count;
      const double deviation = std::sqrt(std::max(0.0, square / count - mean * mean));
      INFO(metric << " " << samples);
      CHECK(deviation > 0.0);
      CHECK(std::abs(mean - problem.loss_rise[1][0]) < deviation);  // 1 / sqrt(32) of it is expected
      return deviation / mean;
    };
    const double relative = spread(128);
    // The draws of `posterior` are minibatches: 32 images are two of them, which tell nothing.
    if (metric != "posterior") CHECK(relative < spread(32));
  }
}

TEST_CASE("other networks of a posterior have other tables, the farther the wider it is") {
  MetricSetting setting;
  const std::string before = ModelHash(setting.network.module);
  // Mean square of log ratios of the rises, and of the shifts of the middle score, bits.
  const auto spread = [&](const std::string& metric) {
    const auto draws = Draws(setting.Inputs(metric, {2, 4}), 3);
    REQUIRE(draws.size() == 9);  // every network with every seed
    double rises = 0.0, scores = 0.0;
    for (const PosteriorDraw& draw : draws) {
      REQUIRE(draw.rise.size() == 3);
      for (std::size_t u = 0; u < 3; ++u) {
        REQUIRE(draw.rise[u].size() == 2);
        REQUIRE(draw.score[u].size() == static_cast<std::size_t>(kPercentiles));
        for (const double ratio : draw.rise[u]) rises += std::pow(std::log(ratio), 2.0);
        scores += std::pow(draw.score[u][50], 2.0);
      }
    }
    return std::pair(rises, scores);
  };
  for (const char* metric : {"posterior", "measured", "predictive"}) {
    INFO(metric);
    const auto wide = spread(metric);
    std::vector<torch::Tensor> sigmas;
    for (LayerPosterior& layer : setting.posterior.layers) {
      sigmas.push_back(layer.sigma);
      layer.sigma = layer.sigma * 1e-4;
      layer.prior_sigma *= 1e-4;
    }
    const auto narrow = spread(metric);
    for (std::size_t l = 0; l < sigmas.size(); ++l) {
      setting.posterior.layers[l].sigma = sigmas[l];
      setting.posterior.layers[l].prior_sigma *= 1e4;
    }
    const std::int64_t data_size = setting.posterior.data_size;
    setting.posterior.data_size = 1;  // one image leaves far more open than a network survives
    const auto tempered = spread(metric);
    setting.posterior.data_size = data_size;
    CHECK(tempered.first < 0.5 * wide.first);
    CHECK(wide.first > 0.0);
    CHECK(narrow.first < 0.01 * wide.first);
    CHECK(narrow.second > 0.0);  // images and seed of the estimate
    CHECK(narrow.second < wide.second);
  }
  {
    const torch::NoGradGuard no_grad;
    GetTensor(setting.network.module, setting.network.layers[0].parameter)[0].zero_();
    GetTensor(setting.network.module, setting.network.layers[1].parameter).zero_();
  }
  const auto pruned = Draws(setting.Inputs("posterior", {2, 4}), 1);
  REQUIRE(pruned.size() == 1);
  CHECK(pruned[0].rise[1][0] ==
        pruned[0].rise[1][1]);  // no rise that could change, only what the others have in common
  for (const auto& layer : pruned[0].score) {
    for (const double bits : layer) CHECK(std::abs(bits) <= 2.0);
  }
  CHECK(std::abs(pruned[0].score[1][50]) < 1.5);  // a layer that noise brought to life would reach the bound
  setting = MetricSetting();
  const auto inputs = setting.Inputs("predictive", {2, 4});
  const auto once = Draws(inputs, 2);
  const auto again = Draws(inputs, 2);
  CHECK(once[1].rise == again[1].rise);
  CHECK(once[1].score == again[1].score);
  CHECK(once[0].rise != once[1].rise);
  CHECK(ModelHash(setting.network.module) == before);
}

TEST_CASE("a table without replicates scatters with the images and the seed of its estimates") {
  MetricSetting setting;
  for (LayerPosterior& layer : setting.posterior.layers) {
    layer.sigma = layer.sigma * 1e-4;
    layer.prior_sigma *= 1e-4;
  }
  for (const char* metric : {"hawq", "activation-distance", "gradient", "fisher-output"}) {
    INFO(metric);
    const auto draws = Draws(setting.Inputs(metric, {2, 4}), 3);
    REQUIRE(draws.size() == 9);
    CHECK(draws[0].rise != draws[3].rise);  // the same network, another seed
    double sum = 0.0, squares = 0.0;
    for (std::size_t s = 0; s < 3; ++s) {
      for (const auto& row : draws[3 * s].rise) {
        for (const double ratio : row) {
          sum += std::log(ratio);
          squares += std::pow(std::log(ratio), 2.0);
        }
      }
    }
    CHECK(sum == Approx(0.0).margin(1e-6));
    CHECK(squares / 18.0 < 0.25);  // an estimate on all 128 images is known to better than a factor of two
    CHECK(squares > 0.0);
  }
}

TEST_CASE("added displacements of one layer are what that layer alone does") {
  const MetricSetting setting;
  auto inputs = setting.Inputs("predictive", {1, 3});
  Displacements displacements;
  inputs.displacements = &displacements;
  const AllocationProblem problem = MeasureSensitivity(inputs, SilentSink());
  JointPlans joint(inputs);
  for (int layer = 0; layer < 3; ++layer) {
    for (int column = 0; column < 2; ++column) {
      std::vector<int> columns(3, kFloatColumn);
      columns[static_cast<std::size_t>(layer)] = column;
      const double alone = problem.loss_rise[static_cast<std::size_t>(layer)][static_cast<std::size_t>(column)];
      CHECK(displacements.Divergence(columns) == Approx(alone).epsilon(1e-3).margin(1e-7));
      CHECK(joint.Measure(columns).divergence == Approx(alone).epsilon(1e-2).margin(1e-6));
    }
  }
  CHECK(displacements.Divergence({kFloatColumn, kFloatColumn, kFloatColumn}) == Approx(0.0).margin(1e-7));
}

TEST_CASE("random plans stay under the limit and are those of the seed") {
  const MetricSetting setting;
  const auto inputs = setting.Inputs("measured", {1, 2, 4, 8});
  const RandomPlans plans = DrawRandomPlans(inputs, 8, 0.5, 3, SilentSink());
  REQUIRE(plans.columns.size() == 8);
  for (const JointRise& rise : plans.rises) {
    CHECK(rise.divergence <= 0.5);
    CHECK(rise.loss_rise <= 0.5);
  }
  CHECK(DrawRandomPlans(inputs, 8, 0.5, 3, SilentSink()).columns == plans.columns);
  CHECK(DrawRandomPlans(inputs, 8, 0.5, 4, SilentSink()).columns != plans.columns);
}

TEST_CASE("the oracle's gradient is the slope of its loss, and a pure mixture is a plan") {
  const MetricSetting setting;
  const auto inputs = setting.Inputs("measured", {2, 4});
  const auto oracle = MakeNetworkOracle(inputs, 64);
  std::vector<std::vector<double>> gradient;
  const double pure = oracle->LossAndGradient({{1, 0}, {0, 1}, {1, 0}}, gradient);
  CHECK(oracle->Loss({0, 1, 0}) == Approx(pure).epsilon(1e-5));
  const auto at = [&](double share) {
    std::vector<std::vector<double>> ignored;
    return oracle->LossAndGradient({{0.5, 0.5}, {1.0 - share, share}, {0.5, 0.5}}, ignored);
  };
  (void)oracle->LossAndGradient({{0.5, 0.5}, {0.5, 0.5}, {0.5, 0.5}}, gradient);
  const double slope = (at(0.55) - at(0.45)) / 0.1;
  CHECK(gradient[1][1] - gradient[1][0] == Approx(slope).epsilon(0.1).margin(1e-4));
}

TEST_CASE("the peers' output metrics count on the batch-norm correction that a plan gets") {
  const Network network = testing::ConvBatchNorm();
  const Dataset data = RandomImages(network, 64);
  const Normalizer normalizer{DataOptions{}};
  for (const std::string metric : {"activation-distance", "fisher-output"}) {
    const auto table = [&](const std::string& batch_norm) {
      QuantizerOptions quantizer;
      quantizer.batch_norm = batch_norm;
      quantizer.range = "max";  // two bits without clipping: what is lost is mostly the deviation of a channel
      const SensitivityInputs inputs{.network = network,
                                     .posterior = nullptr,
                                     .train = data,
                                     .normalizer = normalizer,
                                     .quantizer = quantizer,
                                     .options = {.metric = metric, .samples = 64},
                                     .widths = {2, 8},
                                     .seed = 1};
      return MeasureSensitivity(inputs, SilentSink()).loss_rise;
    };
    const auto corrected = table("transfer"), plain = table("off");
    INFO(metric);
    CHECK(corrected[1][0] < 0.97 * plain[1][0]);
    CHECK(corrected[2][0] == Approx(plain[2][0]).epsilon(1e-4));  // feeds no batch norm
  }
}

// Finite differences along the mixture of every layer, on the same minibatch.
void CheckSlopes(const Network& network, const Dataset& data, bool by_batch_norm) {
  const Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  quantizer.batch_norm = by_batch_norm ? "transfer" : "off";
  quantizer.range = "mse";
  const SensitivityInputs inputs{.network = network,
                                 .posterior = nullptr,
                                 .train = data,
                                 .normalizer = normalizer,
                                 .quantizer = quantizer,
                                 .options = {},
                                 .widths = {2, 4},
                                 .seed = 1};
  const auto oracle = MakeNetworkOracle(inputs, 64);
  const std::vector<std::vector<double>> even(network.layers.size(), {0.5, 0.5});
  std::vector<std::vector<double>> gradient, ignored;
  (void)oracle->LossAndGradient(even, gradient);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const auto at = [&](double share) {
      auto mixture = even;
      mixture[l] = {1.0 - share, share};
      return oracle->LossAndGradient(mixture, ignored);
    };
    const double slope = (at(0.505) - at(0.495)) / 0.01;
    INFO(network.layers[l].name << (by_batch_norm ? ", statistics of the minibatch" : ", trained statistics"));
    CHECK(gradient[l][1] - gradient[l][0] == Approx(slope).epsilon(0.05).margin(1e-3));
  }
}

TEST_CASE("the oracle's gradient goes through the statistics of batch norms") {
  for (const Network& network : {testing::ConvBatchNorm(), testing::ConvBatchNorm(8)}) {
    for (const bool by_batch_norm : {true, false}) CheckSlopes(network, RandomImages(network, 64), by_batch_norm);
  }
}

// relu(x W1') W2', and with `masked` two more outputs that the network rules out by -inf, in place or by a mask added.
Network WithMaskedOutputs(bool masked, bool in_place) {
  torch::manual_seed(5);
  const torch::Tensor first = torch::randn({12, 16}) * 0.5, second = torch::randn({4, 12}),
                      rest = torch::randn({2, 12});
  torch::jit::Module module("masked");
  module.register_parameter("first", first, false);
  module.register_parameter("second", masked ? torch::cat({second, rest}) : second, false);
  torch::Tensor mask = torch::zeros({6});
  mask.slice(0, 4).fill_(-std::numeric_limits<float>::infinity());
  module.register_buffer("mask", mask);
  module.define(std::string("def forward(self, x):\n"
                            "    z = torch.linear(torch.relu(torch.linear(x.flatten(1), self.first)), self.second)\n") +
                (!masked    ? ""
                 : in_place ? "    z[:, 4:] = float('-inf')\n"
                            : "    z = z + self.mask\n") +
                "    return z\n");
  return DescribeNetwork(module, "masked", {1, 4, 4});
}

TEST_CASE("classes that the network rules out count nothing: every metric has the table of the network without them") {
  const Network plain = WithMaskedOutputs(false, false);
  const Dataset data = RandomImages(plain, 64);
  QuantizerOptions quantizer;
  quantizer.range = "mse";
  quantizer.grid = "half";  // one grid for both: rows of ruled-out classes have a word in the choice of a layer's
  const auto table = [&](const Network& network, const std::string& metric) {
    const Normalizer normalizer{DataOptions{}};
    const Posterior posterior =
        EstimatePosterior(network, data, normalizer, {.samples = 64, .batch = 4}, 1, SilentSink());
    SensitivityOptions options;
    options.metric = metric;
    options.samples = 64;
    return MeasureSensitivity({.network = network,
                               .posterior = &posterior,
                               .train = data,
                               .normalizer = normalizer,
                               .quantizer = quantizer,
                               .options = options,
                               .widths = {2, 4, 8},
                               .seed = 1},
                              SilentSink());
  };
  for (const bool in_place : {true, false}) {
    const Network masked = WithMaskedOutputs(true, in_place);
    for (const std::string metric : {"measured", "predictive", "gradient", "activation-distance", "fisher-output"}) {
      // A mask that is added later does not change what the layer itself puts out.
      if (metric == "activation-distance" && !in_place) continue;
      const auto expected = table(plain, metric), found = table(masked, metric);
      for (std::size_t l = 0; l < 2; ++l) {
        for (std::size_t k = 0; k < 3; ++k) {
          INFO(metric << (in_place ? " in place" : " added") << ", layer " << l << ", width " << k);
          if (k == 0) CHECK(expected.loss_rise[l][k] > 1e-4);
          CHECK(found.loss_rise[l][k] == Approx(expected.loss_rise[l][k]).epsilon(1e-3).margin(2e-6));
        }
      }
    }
    for (const std::string metric : {"posterior", "hawq"}) {  // random signs differ with the number of classes
      for (const auto& row : table(masked, metric).loss_rise) {
        for (const double rise : row) CHECK(std::isfinite(rise));
      }
    }
  }
}

TEST_CASE("every metric names the image for which the network gives no numbers") {
  MetricSetting setting;
  setting.data.images[40].fill_(std::numeric_limits<float>::quiet_NaN());
  for (const auto& metric : SensitivityMetrics()) {
    for (const std::string batch_norm : {"off", "transfer"}) {
      setting.quantizer.batch_norm = batch_norm;
      INFO(metric.name << ", batch norm " << batch_norm);
      CHECK_THROWS_WITH(MeasureSensitivity(setting.Inputs(metric.name, {2, 8}), SilentSink()),
                        ContainsSubstring("image 40 of random/train"));
    }
  }
  CHECK_THROWS_WITH(JointPlans(setting.Inputs("measured", {2, 8})), ContainsSubstring("image 40 of random/train"));
  const auto inputs = setting.Inputs("measured", {2, 8});
  CHECK_THROWS_WITH(MakeNetworkOracle(inputs, 128)->Loss({0, 0, 0}), ContainsSubstring("image 40 of random/train"));
}

TEST_CASE(
    "a layer that none of the chosen images reaches costs nothing, by every metric, and the others what they did") {
  const Network network = testing::RareBranch(1.0);
  REQUIRE(network.layers.size() == 3);
  REQUIRE(network.layers[2].name == "rare");
  const Normalizer normalizer{DataOptions{}};
  const Dataset reached = RandomImages(network, 400);
  const torch::Tensor is_dark = reached.images.flatten(1).mean(1).le(1.0), dark = is_dark.nonzero().squeeze(1),
                      bright = is_dark.logical_not().nonzero().squeeze(1);
  REQUIRE(bright.size(0) > 0);
  const Dataset missed = reached.Select(dark), hardly = reached.Select(torch::cat({dark, bright.slice(0, 0, 1)}));
  const Posterior posterior =
      EstimatePosterior(network, reached, normalizer, {.samples = 400, .batch = 4}, 1, SilentSink());
  Posterior unseen = posterior;  // as an estimate from images of which none reached the layer
  unseen.layers[2].sigma = torch::full_like(unseen.layers[2].sigma, unseen.layers[2].prior_sigma);
  for (const auto& metric : SensitivityMetrics()) {
    INFO(metric.name);
    SensitivityOptions options;
    options.metric = metric.name;
    const auto table = [&](const Dataset& data, const Posterior& by, int samples) {
      options.samples = samples;
      const SensitivityInputs inputs = {.network = network,
                                        .posterior = &by,
                                        .train = data,
                                        .normalizer = normalizer,
                                        .quantizer = {},
                                        .options = options,
                                        .widths = {2, 4, 8},
                                        .seed = 1};
      return MeasureSensitivity(inputs, SilentSink());
    };
    CHECK(table(reached, posterior, 400).loss_rise[2][0] > 0.0);
    const auto problem = table(hardly, unseen, 16);  // not the one bright image
    for (const double rise : problem.loss_rise[2]) CHECK(rise == 0.0);
    CHECK(problem.loss_rise[0][0] > problem.loss_rise[0][2]);
    if (metric.needs_gradients) {  // which none of all the images gives
      CHECK_THROWS_WITH(table(missed, unseen, 16), ContainsSubstring("layer rare of rare-branch runs for none"));
    }
  }
}

TEST_CASE("a width at which the network stops giving numbers is refused with the layer") {
  torch::manual_seed(2);
  torch::jit::Module module("fragile");
  module.register_parameter("first", torch::rand({6, 9}) + 0.5, false);
  module.register_parameter("second", torch::randn({3, 6}), false);
  module.define(
      "def forward(self, x):\n"
      "    h = torch.linear(x.flatten(1), self.first)\n"
      "    return torch.linear(h / h.std(1, keepdim=True), self.second)\n");
  const Network network = DescribeNetwork(module, "fragile", {1, 3, 3});
  const Dataset data{"train", torch::rand({32, 1, 3, 3}), torch::randint(0, 3, {32}, torch::kInt64), 3};
  SensitivityOptions options;
  options.metric = "measured";
  const Normalizer normalizer{DataOptions{}};
  QuantizerOptions quantizer;
  quantizer.range = "mse";
  CHECK_THROWS_WITH(MeasureSensitivity({.network = network,
                                        .posterior = nullptr,
                                        .train = data,
                                        .normalizer = normalizer,
                                        .quantizer = quantizer,
                                        .options = options,
                                        .widths = {0, 8},
                                        .seed = 1},
                                       SilentSink()),
                    ContainsSubstring("layer first costs at 0 bits") && ContainsSubstring("allocate.bits"));
}

}  // namespace
}  // namespace bitplan
