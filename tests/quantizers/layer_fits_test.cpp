#include "bitplan/quantizers/layer_fits.h"

#include "bitplan/core/error.h"
#include "io/scratch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

std::vector<QuantizerEvidence> SomeEvidence(const Network& network) {
  std::vector<QuantizerEvidence> evidence;
  torch::manual_seed(2);
  for (const Layer& layer : network.layers) {
    const std::int64_t inputs = layer.weights() / layer.output_channels();
    evidence.push_back({{}, torch::randn({1, 200, inputs}) * torch::linspace(0.1, 3.0, inputs)});
  }
  return evidence;
}

TEST_CASE("scales of all layers and widths come back from their file as they were") {
  const Network network = testing::ConvBatchNorm();
  const auto evidence = SomeEvidence(network);
  QuantizerOptions options;
  options.range = "auto";
  const LayerFits fits = FitLayers(network, {0, 1, 3, 6}, options, &evidence);
  const Scratch scratch;
  const auto file = scratch / "fits.pt";
  SaveLayerFits(fits, file);
  const LayerFits loaded = LoadLayerFits(file);
  CHECK(loaded.asked == fits.asked);
  CHECK(loaded.widths == fits.widths);
  REQUIRE(loaded.fits.size() == network.layers.size());
  for (std::size_t l = 0; l < loaded.fits.size(); ++l) {
    for (std::size_t k = 0; k < loaded.widths.size(); ++k) {
      const QuantizedWeight &was = fits.fits[l][k], &is = loaded.fits[l][k];
      CHECK(is.bits == was.bits);
      CHECK(is.grid == was.grid);
      CHECK(is.range == was.range);
      CHECK(is.error == was.error);
      CHECK(is.scales.equal(was.scales));
    }
  }
  SaveModule(network.module, file);
  CHECK_THROWS_WITH(LoadLayerFits(file), ContainsSubstring("holds no scales of layers"));
}

TEST_CASE("known scales are found by what was asked for and by what a plan records of it, and by nothing else") {
  const Network network = testing::ConvBatchNorm();
  const auto evidence = SomeEvidence(network);
  QuantizerOptions options;
  options.range = "output";
  const LayerFits fits = FitLayers(network, {1, 2, 6}, options, &evidence);
  const QuantizedWeight& two = fits.fits[1][1];
  CHECK(fits.Find(1, 2, {"auto", "output"}) == &two);
  CHECK(fits.Find(1, 2, {two.grid, "output"}) == &two);
  CHECK(fits.Find(1, 2, {two.grid == "zero" ? "half" : "zero", "output"}) == nullptr);
  CHECK(fits.Find(1, 2, {two.grid, "mse"}) == nullptr);
  CHECK(fits.Find(1, 2, {"auto", "mse"}) == nullptr);
  CHECK(fits.Find(1, 3, {"auto", "output"}) == nullptr);
  CHECK(fits.Find(1, 6, {"zero", "mse"}) == &fits.fits[1][2]);  // wide widths are fitted to the weights
}

TEST_CASE("widths that are asked for later join those that are known") {
  const Network network = testing::ConvBatchNorm();
  LayerFits fits;
  CHECK(fits.Missing({4, 2}) == std::vector<int>{4, 2});
  fits.Add(FitLayers(network, {4}, {}, nullptr));
  CHECK(fits.Missing({4, 2}) == std::vector<int>{2});
  fits.Add(FitLayers(network, {2}, {}, nullptr));
  CHECK(fits.Missing({4, 2}).empty());
  const LayerFits whole = FitLayers(network, {2, 4}, {}, nullptr);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    for (const int width : {2, 4}) CHECK(fits.Find(l, width)->scales.equal(whole.Find(l, width)->scales));
  }
}

}  // namespace
}  // namespace bitplan
