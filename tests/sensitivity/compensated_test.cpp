#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <utility>

#include "bitplan/models/batch_norm.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;
using testing::RandomImages;

struct CompensatedSetting {
  Network network = ConvBatchNorm();
  Dataset data = RandomImages(network, 256);
  Normalizer normalizer{DataOptions{}};

  [[nodiscard]] AllocationProblem Measure(const std::string& metric, std::vector<int> widths = {1, 2, 4}) const {
    QuantizerOptions options;
    options.batch_norm = "transfer";
    options.range = "mse";
    const SensitivityInputs inputs{.network = network,
                                   .posterior = nullptr,
                                   .train = data,
                                   .normalizer = normalizer,
                                   .quantizer = options,
                                   .options = {.metric = metric, .samples = 256},
                                   .widths = std::move(widths),
                                   .seed = 1};
    return MeasureSensitivity(inputs, SilentSink());
  }
};

TEST_CASE("the table of compensated errors lies below that of nearest rounding") {
  const CompensatedSetting setting;
  const auto compensated = setting.Measure("compensated").loss_rise;
  const auto nearest = setting.Measure("predictive").loss_rise;
  for (std::size_t l = 0; l < nearest.size(); ++l) {
    for (std::size_t k = 0; k < 2; ++k) {
      INFO(setting.network.layers[l].name << ": " << compensated[l][k] << " against " << nearest[l][k]);
      // The nine inputs of the first layer are random pixels: there is little that one weight could take back of
      // another.
      CHECK(compensated[l][k] < (l == 0 ? 1.05 : 0.9) * nearest[l][k]);
    }
  }
}

TEST_CASE("a layer at no bits costs the same however it is rounded") {
  const CompensatedSetting setting;
  const auto compensated = setting.Measure("compensated", {0}).loss_rise;
  const auto nearest = setting.Measure("predictive", {0}).loss_rise;
  for (std::size_t l = 0; l < nearest.size(); ++l) CHECK(compensated[l][0] == Approx(nearest[l][0]));
}

TEST_CASE("gradients through following statistics do not see a scale or a shift of a channel") {
  const CompensatedSetting setting;
  torch::Tensor x = torch::randn({32, 3, 5, 5});
  x.set_requires_grad(true);
  const ChannelStatistics trained{torch::randn({3}), torch::rand({3}) + 0.5};
  const torch::Tensor y = torch::batch_norm(x, {}, {}, trained.mean, trained.var, /*training=*/false, 0.1, 1e-5, false);
  LetStatisticsFollow(x, y, StatisticsOf(x.detach()), 1e-5);
  const torch::Tensor g = torch::autograd::grad({(y * torch::randn(y.sizes())).sum()}, {x})[0];
  const torch::Tensor shift = torch::ones_like(x), scale = x.detach();
  const double size = (g * torch::randn_like(x)).abs().sum().item<double>();
  CHECK(std::abs((g * shift).sum().item<double>()) < 1e-4 * size);
  CHECK(std::abs((g * scale).sum().item<double>()) < 1e-4 * size);
}

}  // namespace
}  // namespace bitplan
