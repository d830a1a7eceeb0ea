// Scales of standard deviations after fine-tuning.
#include "bitplan/bayes/calibrate.h"

#include <torch/torch.h>

#include <cmath>

#include "bitplan/bayes/variational_network.h"
#include "support/catch_torch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

// Images that occur once, then images that occur three times each.
Dataset TwoKinds(const Network& network) {
  Dataset data = testing::RandomImages(network, 90);
  const torch::Tensor once = torch::arange(60), thrice = torch::arange(60, 90).repeat_interleave(3);
  return data.Select(torch::cat({once, thrice}));
}

TEST_CASE("standard deviations that are too large or too small are brought back, whatever stores them") {
  const Network network = testing::ConvBatchNorm();
  const StoredNetwork reference = VariationalNetwork(network, 0.3).Store();
  const EpistemicTarget target(reference, TwoKinds(network), Normalizer{DataOptions{}}, 1, SilentSink());
  CHECK(target.Drift(reference, SilentSink()) == std::vector<double>{0.0, 0.0});  // either kind
  for (const char* scale : {"", "log", "linear"}) {
    for (const double factor : {0.85, 1.15}) {
      INFO(scale << " " << factor);
      StoredNetwork moved = reference;
      for (StoredLayer& layer : moved.layers) layer.sigma = layer.sigma * factor;
      if (*scale != '\0') {
        VariationalNetwork rounded(moved);
        rounded.Quantize(std::vector<BayesWidths>(3, {8, 8, kFloatBits}), scale, {}, 1);
        moved = rounded.Store();
      }
      const auto before = target.Drift(moved, SilentSink());
      CHECK(CalibrateSigmas(moved, target, SilentSink()) == Approx(1.0 / factor).epsilon(0.05));
      const auto after = target.Drift(moved, SilentSink());
      for (std::size_t kind = 0; kind < 2; ++kind) {
        CHECK(std::abs(before[kind]) > 0.15);
        CHECK(std::abs(after[kind]) < 0.05);
      }
    }
  }
  StoredNetwork lost = reference;
  for (StoredLayer& layer : lost.layers) layer.sigma = layer.sigma * 0.01;
  CHECK(CalibrateSigmas(lost, target, SilentSink()) == 1.25);
}

}  // namespace
}  // namespace bitplan
