#include "sensitivity/posterior_metric.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/interrupt.h"
#include "bitplan/quantizers/quantizer.h"
#include "posterior/finite.h"
#include "sensitivity/activation_rises.h"
#include "sensitivity/bootstrap.h"
#include "sensitivity/sketch_draws.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr double kCoherenceFloor = 1.0 / 64.0;  // keeps a chance zero of very few draws from erasing a layer
constexpr double kCoherenceCeiling = 1e6;

// (g . dw)^2 / 2 per image for every minibatch, layer and width: float64 [minibatches, layers, widths]. Its mean over
// the minibatches is the rise along the errors, nats per sample.
torch::Tensor RiseAlongErrors(const SensitivityInputs& inputs, const QuantizedLayers& quantized,
                              ProgressSink& progress) {
  const GradientScope scope(inputs.network);
  SketchDraws draws(inputs);
  const std::int64_t samples = draws.samples();

  const auto layers = static_cast<std::int64_t>(quantized.rows.size());
  const auto widths = static_cast<std::int64_t>(inputs.widths.size());
  const torch::Tensor rise = torch::empty({draws.batches(), layers, widths}, torch::kFloat64);
  double* value = rise.data_ptr<double>();
  // A last minibatch that is not full counts by its share of the images.
  const double per_image = 0.5 * static_cast<double>(rise.size(0)) / static_cast<double>(samples);
  progress.Begin("sensitivity", samples, "images");
  ActivationMeter* const activations = inputs.activations;
  if (activations != nullptr) activations->Watch();
  for (std::int64_t begin = 0; begin < samples; begin += kSketchBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = draws.Rows(begin);
    const torch::Tensor sketch = draws.Sketch(rows);
    auto leaves = scope.weights();
    if (activations != nullptr) {
      for (const torch::Tensor& read : activations->TakeReads()) leaves.push_back(read);
    }
    auto gradients = GradientsOf(sketch, leaves);
    const auto of_activations = gradients.begin() + layers;
    const std::vector<torch::Tensor> reads(of_activations, gradients.end());
    gradients.erase(of_activations, gradients.end());
    if (!AreFinite(gradients)) {
      RefuseImage(inputs.train, rows, "the gradient", [&](const torch::Tensor& row) {
        RandomStream alone(inputs.seed, "sensitivity/alone");
        return AreFinite(GradientsOf(FisherSketch(inputs.network.module, inputs.train, row, inputs.normalizer, alone),
                                     scope.weights()));
      });
    }
    std::vector<double> dots;
    for (std::size_t l = 0; l < quantized.rows.size(); ++l) {
      for (const double dot : quantized.rows[l].ErrorDots(quantized.fits[l], gradients[l])) {
        *value++ = per_image * dot * dot;
        dots.push_back(dot);
      }
    }
    if (activations != nullptr) activations->Add(reads, rows.size(0), dots);
    progress.Advance(rows.size(0));
  }
  progress.End("");
  return rise;
}

}  // namespace

AllocationProblem MeasurePosterior(const SensitivityInputs& inputs, ProgressSink& progress) {
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    const torch::Tensor information = inputs.posterior->Information(l);
    const torch::Tensor weight = GetTensor(inputs.network.module, inputs.network.layers[l].parameter).detach();
    std::vector<double> rise;
    for (const QuantizedWeight& fit : quantized.fits[l]) {
      const torch::Tensor error = quantized.rows[l].Values(fit).sub_(weight);
      rise.push_back(0.5 * error.square_().mul_(information).sum(torch::kFloat64).item<double>());
    }
    problem.loss_rise.push_back(std::move(rise));
  }
  if (!inputs.options.coherence || inputs.options.samples == 0) return problem;

  const torch::Tensor draws = RiseAlongErrors(inputs, quantized, progress);
  const torch::Tensor along = draws.mean(0);
  const TableBootstrap bootstrap(draws.size(0), inputs.seed);
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    for (std::size_t k = 0; k < inputs.widths.size(); ++k) {
      const auto at = [&](const torch::Tensor& table) {
        return table.select(-2, static_cast<std::int64_t>(l)).select(-1, static_cast<std::int64_t>(k));
      };
      double& alone = problem.loss_rise[l][k];
      const double low = alone * kCoherenceFloor, high = alone * kCoherenceCeiling;
      const double rise = std::clamp(at(along).item<double>(), low, high);
      problem.units[l].coherence.push_back(alone > 0.0 ? rise / alone : 1.0);
      bootstrap.Fill(problem, l, k, at(draws));
      for (auto& replicate : problem.replicates) replicate[l][k] = std::clamp(replicate[l][k], low, high);
      alone = rise;
    }
  }
  return problem;
}

}  // namespace bitplan
