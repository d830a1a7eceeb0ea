#include "sensitivity/measured_metric.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/models/at_once.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/bootstrap.h"
#include "sensitivity/one_layer_runs.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kLossBatch = 256;

}  // namespace

AllocationProblem MeasureByQuantizing(const SensitivityInputs& inputs, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  RandomStream draws(inputs.seed, "sensitivity/samples");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, index));

  const std::int64_t step = std::min(kLossBatch, ImagesAtOnce(inputs.network)), count = images.size(0);
  const auto layers = static_cast<std::int64_t>(problem.units.size());
  const auto widths = static_cast<std::int64_t>(inputs.widths.size());
  const torch::Tensor divergence = torch::empty({layers, widths, count});
  OneLayerRuns runs(inputs, quantized, /*transfer=*/false);
  progress.Begin("sensitivity measured", layers * widths * ((count + step - 1) / step), "settings");
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const std::int64_t end = std::min(begin + step, count);
    const torch::Tensor batch = images.slice(0, begin, end);
    const torch::Tensor rows = index.slice(0, begin, end), labels = inputs.train.labels.index_select(0, rows);
    const torch::Tensor reference = RunForward(inputs.network.module, batch);
    RequireSound(reference, inputs.network.module, inputs.train, rows, inputs.normalizer);
    runs.Logits(batch, [&](std::size_t l, std::size_t k, const torch::Tensor& logits) {
      divergence[static_cast<std::int64_t>(l)][static_cast<std::int64_t>(k)]
          .slice(0, begin, end)
          .copy_(inputs.train.Task().Divergences(reference, logits, labels));
      progress.Advance(1);
    });
  }
  progress.End("");
  FillWithMeans(problem, divergence, inputs.seed);
  return problem;
}

}  // namespace bitplan
