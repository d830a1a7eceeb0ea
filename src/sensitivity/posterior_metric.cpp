#include "sensitivity/posterior_metric.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/interrupt.h"
#include "bitplan/quantizers/quantizer.h"
#include "posterior/batches.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kCoherenceBatch = 16;    // small: every minibatch is one draw of the estimate
constexpr double kCoherenceFloor = 1.0 / 64.0;  // keeps a chance zero of very few draws from erasing a layer
constexpr double kCoherenceCeiling = 1e6;

// E[(g . dw)^2] / 2 for every layer and width, nats per sample.
std::vector<std::vector<double>> RiseAlongErrors(const SensitivityInputs& inputs, const QuantizedLayers& quantized,
                                                 ProgressSink& progress) {
  torch::jit::Module module = inputs.network.module;
  const GradientScope scope(inputs.network);
  RandomStream draws(inputs.seed, "sensitivity/samples");
  RandomStream signs(inputs.seed, "sensitivity/signs");
  const torch::Tensor index = DrawSamples(inputs.train, inputs.options.samples, draws);
  const std::int64_t samples = index.size(0);

  std::vector<std::vector<double>> rise(quantized.rows.size(), std::vector<double>(inputs.widths.size(), 0.0));
  progress.Begin("sensitivity", samples, "images");
  for (std::int64_t begin = 0; begin < samples; begin += kCoherenceBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kCoherenceBatch, samples));
    const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, rows));
    const auto gradients = torch::autograd::grad({FisherSketch(module, images, signs)}, scope.weights());
    for (std::size_t l = 0; l < rise.size(); ++l) {
      for (std::size_t k = 0; k < inputs.widths.size(); ++k) {
        const double dot = quantized.rows[l].ErrorDot(quantized.fits[l][k], gradients[l]);
        rise[l][k] += dot * dot;
      }
    }
    progress.Advance(rows.size(0));
  }
  progress.End("");
  for (auto& layer : rise) {
    for (double& value : layer) value *= 0.5 / static_cast<double>(samples);
  }
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

  const auto along = RiseAlongErrors(inputs, quantized, progress);
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    for (std::size_t k = 0; k < inputs.widths.size(); ++k) {
      double& alone = problem.loss_rise[l][k];
      const double coherence = alone > 0.0 ? std::clamp(along[l][k] / alone, kCoherenceFloor, kCoherenceCeiling) : 1.0;
      problem.units[l].coherence.push_back(coherence);
      alone *= coherence;
    }
  }
  return problem;
}

}  // namespace bitplan
