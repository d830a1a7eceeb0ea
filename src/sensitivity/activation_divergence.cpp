#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <string>

#include "bitplan/models/at_once.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/activation_tables.h"
#include "sensitivity/one_layer_runs.h"

namespace bitplan {
namespace {

constexpr std::int64_t kRoundedBatch = 256;

// Mean divergence of the predictions with one tensor rounded. `transfer`: batch norms move along, all images at once.
ActivationRises DivergencesAlone(const SensitivityInputs& inputs, const ActivationLevels& levels, bool transfer,
                                 ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  ActivationRises rises = NoRises(levels);
  const std::int64_t at_once = ImagesAtOnce(inputs.network);
  const std::int64_t most = std::max(1, inputs.options.samples);
  RandomStream draws(inputs.seed, "sensitivity/samples");
  const torch::Tensor index = DrawSamples(inputs.train, transfer ? std::min(most, at_once) : most, draws);
  const std::int64_t count = index.size(0), step = transfer ? count : std::min(kRoundedBatch, at_once);
  OneLayerRuns runs(inputs, levels, transfer);
  std::int64_t settings = 0;
  for (const auto& quantizers : levels.quantizers) settings += std::ssize(quantizers);
  progress.Begin("sensitivity " + inputs.options.metric + " of activations", settings * ((count + step - 1) / step),
                 "settings");
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + step, count));
    const torch::Tensor batch = inputs.normalizer.Apply(inputs.train.images.index_select(0, rows));
    const torch::Tensor labels = inputs.train.labels.index_select(0, rows);
    const torch::Tensor reference = RunForward(inputs.network.module, batch);
    RequireSound(reference, inputs.network.module, inputs.train, rows, inputs.normalizer);
    runs.Logits(batch, [&](std::size_t tensor, std::size_t column, const torch::Tensor& logits) {
      const torch::Tensor divergences = inputs.train.Task().Divergences(reference, logits, labels);
      rises.loss_rise[tensor][column] += divergences.sum(torch::kFloat64).item<double>() / static_cast<double>(count);
      progress.Advance(1);
    });
  }
  progress.End("");
  for (auto& row : rises.loss_rise) {
    for (double& rise : row) rise = rise < 0.0 ? 0.0 : rise;  // rounding errors of a mean that is not negative
  }
  return rises;
}

}  // namespace

ActivationRises MeasureActivationsByRounding(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                             ProgressSink& progress) {
  return DivergencesAlone(inputs, levels, /*transfer=*/false, progress);
}

ActivationRises MeasureActivationsPredictive(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                             ProgressSink& progress) {
  const bool transfer = !inputs.network.batch_norms.empty() && CentringOf(inputs.quantizer).batch_norm;
  return DivergencesAlone(inputs, levels, transfer, progress);
}

}  // namespace bitplan
