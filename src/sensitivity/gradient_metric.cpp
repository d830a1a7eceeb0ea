#include "sensitivity/gradient_metric.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/interrupt.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kGradientBatch = 16;

// Mean over the minibatches of |gradient|, per layer.
std::vector<torch::Tensor> GradientMagnitudes(const SensitivityInputs& inputs, ProgressSink& progress) {
  torch::jit::Module module = inputs.network.module;
  const GradientScope scope(inputs.network);
  RandomStream draws(inputs.seed, "sensitivity/samples");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  std::vector<torch::Tensor> magnitudes;
  for (const torch::Tensor& weight : scope.weights()) magnitudes.push_back(torch::zeros_like(weight).detach());
  progress.Begin("sensitivity gradient", index.size(0), "images");
  for (std::int64_t begin = 0; begin < index.size(0); begin += kGradientBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kGradientBatch, index.size(0)));
    const auto gradients_of = [&](const torch::Tensor& some) {
      const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, some));
      const torch::Tensor loss =
          inputs.train.Task().Loss(RunForward(module, images), inputs.train.labels.index_select(0, some));
      return GradientsOf(loss, scope.weights());
    };
    const auto gradients = gradients_of(rows);
    if (!AreFinite(gradients)) {
      RefuseImage(inputs.train, rows, "the gradient",
                  [&](const torch::Tensor& row) { return AreFinite(gradients_of(row)); });
    }
    const double share = static_cast<double>(rows.size(0)) / static_cast<double>(index.size(0));
    for (std::size_t l = 0; l < gradients.size(); ++l) magnitudes[l].add_(gradients[l].abs(), share);
    progress.Advance(rows.size(0));
  }
  progress.End("");
  return magnitudes;
}

}  // namespace

AllocationProblem MeasureGradientProduct(const SensitivityInputs& inputs, ProgressSink& progress) {
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  const auto magnitudes = GradientMagnitudes(inputs, progress);
  const torch::NoGradGuard no_grad;
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    const torch::Tensor weight = GetTensor(inputs.network.module, inputs.network.layers[l].parameter).detach();
    std::vector<double> rise;
    for (const QuantizedWeight& fit : quantized.fits[l]) {
      const torch::Tensor error = quantized.rows[l].Values(fit).sub_(weight);
      rise.push_back(error.abs_().mul_(magnitudes[l]).sum(torch::kFloat64).item<double>());
    }
    problem.loss_rise.push_back(std::move(rise));
  }
  return problem;
}

}  // namespace bitplan
