#include "sensitivity/units.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/quantizers/layer_fits.h"

namespace bitplan {
namespace {

// The least likelihood information that counts, in shares of the prior's: a weight of which the data said nothing asks
// for no bits, and its score must stay finite and not hang on rounding.
constexpr double kLeastShare = 1e-6;

// Gives the ranks `first` .. `last` (ascending, from `begin` to below `end`) of data[begin .. end) the values that they
// have in ascending order: far less work than to sort them all.
void PutInPlace(float* data, std::int64_t begin, std::int64_t end, const std::int64_t* first,
                const std::int64_t* last) {
  if (first == last) return;
  const std::int64_t* const middle = first + (last - first) / 2;
  std::nth_element(data + begin, data + *middle, data + end);
  PutInPlace(data, begin, *middle, first, middle);
  PutInPlace(data, *middle + 1, end, middle + 1, last);
}

}  // namespace

std::vector<double> Percentiles(const torch::Tensor& values) {
  torch::Tensor own = values.reshape(-1).clone();
  float* const data = own.data_ptr<float>();
  const std::int64_t n = own.numel();
  std::vector<double> positions;
  std::vector<std::int64_t> ranks;
  for (int p = 0; p < kPercentiles; ++p) {
    positions.push_back(static_cast<double>(p) / (kPercentiles - 1) * static_cast<double>(n - 1));
    const auto below = static_cast<std::int64_t>(positions.back());
    for (const std::int64_t rank : {below, std::min(below + 1, n - 1)}) {
      if (ranks.empty() || ranks.back() < rank) ranks.push_back(rank);
    }
  }
  PutInPlace(data, 0, n, ranks.data(), ranks.data() + ranks.size());
  std::vector<double> percentiles;
  for (const double position : positions) {
    const auto below = static_cast<std::int64_t>(position);
    const double share = position - static_cast<double>(below);
    const float low = data[below], high = data[std::min(below + 1, n - 1)];
    // Between equal values the sum would round to one beside them, and percentiles must ascend.
    percentiles.push_back(low == high ? low : (1.0 - share) * low + share * high);
  }
  return percentiles;
}

QuantizedLayers FitAllWidths(const SensitivityInputs& inputs) {
  LayerFits found;
  if (inputs.fits == nullptr) found = FitLayers(inputs.network, inputs.widths, inputs.quantizer, inputs.evidence);
  const LayerFits& fits = inputs.fits != nullptr ? *inputs.fits : found;
  if (!fits.Missing(inputs.widths).empty()) {
    throw Error(ErrorKind::kInternal, "sensitivity: scales are known for other widths");
  }
  QuantizedLayers quantized;
  quantized.codes = inputs.codes;
  for (std::size_t l = 0; l < inputs.network.layers.size(); ++l) {
    auto& of_layer = quantized.fits.emplace_back();
    for (const int width : inputs.widths) of_layer.push_back(*fits.Find(l, width));
  }
  QuantizerOptions known = inputs.quantizer;
  known.range = "mse";  // rounding with scales that are found asks for no evidence
  for (const Layer& layer : inputs.network.layers) {
    quantized.rows.emplace_back(GetTensor(inputs.network.module, layer.parameter), layer.output_dim, known);
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
