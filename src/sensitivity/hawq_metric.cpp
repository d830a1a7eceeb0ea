#include "sensitivity/hawq_metric.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/interrupt.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kHessianBatch = 32;

// Tr(H_u) of every layer, mean over the minibatches.
std::vector<double> Traces(const SensitivityInputs& inputs, ProgressSink& progress) {
  torch::jit::Module module = inputs.network.module;
  const GradientScope scope(inputs.network);
  RandomStream draws(inputs.seed, "sensitivity/samples"), probes(inputs.seed, "sensitivity/probes");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  std::vector<double> traces(scope.weights().size(), 0.0);
  progress.Begin("sensitivity hawq", index.size(0), "images");
  for (std::int64_t begin = 0; begin < index.size(0); begin += kHessianBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kHessianBatch, index.size(0)));
    const auto gradients_of = [&](const torch::Tensor& some) {
      const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, some));
      const torch::Tensor loss =
          inputs.train.Task().Loss(RunForward(module, images), inputs.train.labels.index_select(0, some));
      return GradientsOf(loss, scope.weights(), /*create_graph=*/true);
    };
    const auto gradients = gradients_of(rows);
    if (!AreFinite(gradients)) {
      RefuseImage(inputs.train, rows, "the gradient",
                  [&](const torch::Tensor& row) { return AreFinite(gradients_of(row)); });
    }
    // One product a layer: signs for all layers at once would add the blocks off the diagonal as noise.
    for (std::size_t l = 0; l < traces.size(); ++l) {
      const torch::Tensor signs = RandomSigns(gradients[l], probes);
      const torch::Tensor directional = (gradients[l] * signs).sum();
      if (!directional.requires_grad()) continue;  // no image of the minibatch reaches the layer
      const auto product = torch::autograd::grad({directional}, {scope.weights()[l]}, {}, /*retain_graph=*/true, false,
                                                 /*allow_unused=*/true);
      if (!product[0].defined()) continue;  // the gradient does not depend on the layer: no curvature
      traces[l] += (product[0] * signs).sum(torch::kFloat64).item<double>() * static_cast<double>(rows.size(0)) /
                   static_cast<double>(index.size(0));
    }
    progress.Advance(rows.size(0));
  }
  progress.End("");
  return traces;
}

}  // namespace

AllocationProblem MeasureHessianTrace(const SensitivityInputs& inputs, ProgressSink& progress) {
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  const std::vector<double> traces = Traces(inputs, progress);
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    const torch::Tensor weight = GetTensor(inputs.network.module, inputs.network.layers[l].parameter).detach();
    const double mean_curvature = std::abs(traces[l]) / static_cast<double>(problem.units[l].weights);
    std::vector<double> rise;
    for (const QuantizedWeight& fit : quantized.fits[l]) {
      const torch::Tensor error = quantized.rows[l].Values(fit).sub_(weight);
      rise.push_back(0.5 * mean_curvature * error.square_().sum(torch::kFloat64).item<double>());
    }
    problem.loss_rise.push_back(std::move(rise));
  }
  return problem;
}

}  // namespace bitplan
