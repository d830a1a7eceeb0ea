// What every metric needs: each layer's quantizers at all widths, and the units with their score percentiles.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <vector>

#include "bitplan/quantizers/quantizer.h"
#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

struct QuantizedLayers {
  std::vector<WeightRows> rows;                    // [layers]
  std::vector<std::vector<QuantizedWeight>> fits;  // [layers][widths]
  const LayerCodes* codes = nullptr;               // others than the nearest levels, as SensitivityInputs says

  // The quantized weights of a layer, shape of the weight.
  [[nodiscard]] torch::Tensor Values(std::size_t layer, std::size_t column) const {
    return codes != nullptr ? (*codes)[layer][column].Values() : rows[layer].Values(fits[layer][column]);
  }
};

[[nodiscard]] QuantizedLayers FitAllWidths(const SensitivityInputs& inputs);

// Units of whole layers with an empty table; percentiles filled when there is a posterior.
[[nodiscard]] AllocationProblem DescribeUnits(const SensitivityInputs& inputs, const QuantizedLayers& quantized);

// Percentiles 0..100 of a tensor's values, linear between order statistics.
[[nodiscard]] std::vector<double> Percentiles(const torch::Tensor& values);

}  // namespace bitplan
