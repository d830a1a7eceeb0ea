#include "sensitivity/compensated_layers.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "models/input_products.h"
#include "posterior/batches.h"
#include "posterior/finite.h"

namespace bitplan {
namespace {

constexpr std::int64_t kImages = 512;
constexpr std::int64_t kPositionsPerWeight = 8;
constexpr std::int64_t kLeastPositions = 8192;

// E[x x^T] of a layer's inputs at these positions, float32 [groups, n, n]; around their mean where that is `centred`.
torch::Tensor InputMoments(const Layer& layer, const torch::Tensor& input, const torch::Tensor& positions,
                           bool centred) {
  torch::Tensor squares, sum, pilot;
  for (const torch::Tensor& part : GatherParts(layer, positions)) {
    torch::Tensor x = GatherInputs(layer, input, part);
    if (centred) {
      if (!pilot.defined()) pilot = x.mean(1, /*keepdim=*/true);
      x.sub_(pilot);
    }
    AddUpperProducts(squares, x);
    const torch::Tensor total = x.sum(1);
    sum = sum.defined() ? sum.add_(total) : total;
  }
  MirrorUpper(squares);
  const auto count = static_cast<double>(positions.size(0));
  squares.div_(count);
  if (!centred) return squares;
  sum.div_(count);
  return squares.sub_(sum.unsqueeze(2) * sum.unsqueeze(1));
}

}  // namespace

LayerCodes CompensateAlone(const SensitivityInputs& inputs, const QuantizedLayers& quantized, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  const auto& layers = inputs.network.layers;
  LayerCodes codes(layers.size());
  RandomStream draws(inputs.seed, "sensitivity/compensated");
  const torch::Tensor index = DrawSamples(inputs.train, std::min(kImages, ImagesAtOnce(inputs.network)), draws);
  RequireFiniteActivations(inputs.network, inputs.train, index, inputs.normalizer);
  const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, index));
  const std::vector<bool> centred = CentredLayers(inputs.network, inputs.quantizer);
  auto generator = at::detail::createCPUGenerator(StreamSeed(inputs.seed, "sensitivity/compensated/positions"));
  progress.Begin("compensated layers", static_cast<std::int64_t>(layers.size()), "layers");
  const auto round = [&](std::size_t l, const torch::Tensor& input) {
    ThrowIfInterrupted();
    const Layer& layer = layers[l];
    if (!HasKnownInputs(layer) || input.numel() == 0 || !codes[l].empty()) return;
    const WeightRows& rows = quantized.rows[l];
    const std::int64_t wanted =
        std::max(kLeastPositions, kPositionsPerWeight * (layer.weights() / layer.output_channels()));
    torch::Tensor positions = DrawPositions(InputPositions(layer, input), wanted, generator);
    // Held out are any of them, whatever the first dimension of the input is.
    positions = positions.index_select(0, torch::randperm(positions.size(0), generator, torch::kInt64));
    const std::int64_t kept = std::max<std::int64_t>(1, positions.size(0) * 3 / 4);
    const auto moments =
        rows.OwnOutputs(InputMoments(layer, input, std::get<0>(positions.slice(0, 0, kept).sort()), centred[l]));
    const auto held_out =
        kept == positions.size(0)
            ? moments
            : rows.OwnOutputs(InputMoments(layer, input, std::get<0>(positions.slice(0, kept).sort()), centred[l]));
    for (const QuantizedWeight& fit : quantized.fits[l]) {
      ThrowIfInterrupted();
      codes[l].push_back(rows.Compensated(fit, moments, held_out));
    }
    progress.Advance(1);
  };
  {
    const Tap tap(inputs.network, inputs.network.module, {.on_layer_input = round});
    (void)RunForward(inputs.network.module, images);
  }
  for (std::size_t l = 0; l < layers.size(); ++l) {
    if (!codes[l].empty()) continue;
    for (const QuantizedWeight& fit : quantized.fits[l]) codes[l].push_back(quantized.rows[l].Quantized(fit));
  }
  progress.End("");
  return codes;
}

}  // namespace bitplan
