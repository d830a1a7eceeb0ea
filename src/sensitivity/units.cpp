#include "sensitivity/units.h"

#include <torch/types.h>

#include <cmath>

#include "bitplan/core/interrupt.h"

namespace bitplan {
namespace {

// The least likelihood information that counts, in shares of the prior's: a weight of which the data said nothing asks
// for no bits, and its score must stay finite and not hang on rounding.
constexpr double kLeastShare = 1e-6;

}  // namespace

std::vector<double> Percentiles(const torch::Tensor& values) {
  const torch::Tensor sorted = std::get<0>(values.reshape(-1).sort());
  const float* const data = sorted.data_ptr<float>();
  const std::int64_t n = sorted.numel();
  std::vector<double> percentiles(kPercentiles);
  for (int p = 0; p < kPercentiles; ++p) {
    const double position = static_cast<double>(p) / (kPercentiles - 1) * static_cast<double>(n - 1);
    const auto below = static_cast<std::int64_t>(position);
    const std::int64_t above = std::min(below + 1, n - 1);
    const double share = position - static_cast<double>(below);
    percentiles[static_cast<std::size_t>(p)] = (1.0 - share) * data[below] + share * data[above];
  }
  return percentiles;
}

QuantizedLayers FitAllWidths(const SensitivityInputs& inputs) {
  QuantizedLayers quantized;
  for (std::size_t l = 0; l < inputs.network.layers.size(); ++l) {
    const Layer& layer = inputs.network.layers[l];
    quantized.rows.emplace_back(GetTensor(inputs.network.module, layer.parameter), layer.output_dim, inputs.quantizer,
                                inputs.evidence == nullptr ? QuantizerEvidence() : inputs.evidence->at(l));
    std::vector<QuantizedWeight> fits;
    for (const int width : inputs.widths) {
      ThrowIfInterrupted();
      fits.push_back(quantized.rows.back().Fit(width, inputs.quantizer.grid));
    }
    quantized.fits.push_back(std::move(fits));
  }
  return quantized;
}

AllocationProblem DescribeUnits(const SensitivityInputs& inputs, const QuantizedLayers& quantized) {
  AllocationProblem problem;
  problem.widths = inputs.widths;
  for (std::size_t l = 0; l < inputs.network.layers.size(); ++l) {
    const Layer& layer = inputs.network.layers[l];
    Unit unit;
    unit.name = layer.name;
    unit.weights = layer.weights();
    unit.scales = quantized.rows[l].rows();
    unit.macs = layer.macs;
    if (inputs.posterior != nullptr) {
      const double prior = inputs.posterior->layers[l].prior_sigma;
      const double least = kLeastShare / (prior * prior * static_cast<double>(inputs.posterior->data_size));
      const torch::Tensor information = inputs.posterior->Information(l).clamp_min(least);
      const torch::Tensor log_sigma =
          information.mul(static_cast<double>(inputs.posterior->data_size)).log2_().mul_(-0.5);
      const torch::Tensor log_range = quantized.rows[l].RangeLike().clamp_min(1e-30).log2();
      unit.log_sigma_percentiles = Percentiles(log_sigma);
      unit.score_percentiles = Percentiles(log_range - log_sigma + 1.0 - 0.5 * std::log2(12.0));
    }
    problem.units.push_back(std::move(unit));
  }
  return problem;
}

}  // namespace bitplan
