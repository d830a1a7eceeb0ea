#include "sensitivity/measured_metric.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/at_once.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/bootstrap.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kLossBatch = 256;

// Log-probabilities of all images, [n, classes] float32.
torch::Tensor LogProbabilities(torch::jit::Module& module, const torch::Tensor& images, std::int64_t step) {
  std::vector<torch::Tensor> parts;
  for (std::int64_t begin = 0; begin < images.size(0); begin += step) {
    ThrowIfInterrupted();
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + step, images.size(0)));
    parts.push_back(RunForward(module, batch).log_softmax(1));
  }
  return torch::cat(parts);
}

}  // namespace

AllocationProblem MeasureByQuantizing(const SensitivityInputs& inputs, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  RandomStream draws(inputs.seed, "sensitivity/samples");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, index));

  torch::jit::Module module = CloneModule(inputs.network.module);
  const std::int64_t step = std::min(kLossBatch, ImagesAtOnce(inputs.network));
  const torch::Tensor reference = LogProbabilities(module, images, step);
  RequireProbabilities(reference, module, inputs.train, index, inputs.normalizer);
  const TableBootstrap bootstrap(images.size(0), inputs.seed);
  progress.Begin("sensitivity measured", static_cast<std::int64_t>(problem.units.size() * inputs.widths.size()),
                 "settings");
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    const torch::Tensor slot = GetTensor(module, inputs.network.layers[l].parameter);
    const torch::Tensor original = slot.clone();
    std::vector<double> rise;
    for (const QuantizedWeight& fit : quantized.fits[l]) {
      slot.copy_(quantized.rows[l].Values(fit));
      const torch::Tensor divergence = RowDivergences(reference, LogProbabilities(module, images, step));
      bootstrap.Fill(problem, l, rise.size(), divergence);
      rise.push_back(MeanNotNegative(divergence));
      progress.Advance(1);
    }
    slot.copy_(original);
    problem.loss_rise.push_back(std::move(rise));
  }
  progress.End("");
  return problem;
}

}  // namespace bitplan
