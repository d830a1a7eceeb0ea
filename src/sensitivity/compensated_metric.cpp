#include "sensitivity/compensated_metric.h"

#include <cmath>

#include "sensitivity/compensated_layers.h"
#include "sensitivity/predictive_metric.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

using RiseTable = std::vector<std::vector<double>>;

void TakeGeometricMean(RiseTable& table, const RiseTable& other) {
  for (std::size_t l = 0; l < table.size(); ++l) {
    for (std::size_t k = 0; k < table[l].size(); ++k) table[l][k] = std::sqrt(table[l][k] * other[l][k]);
  }
}

}  // namespace

AllocationProblem MeasureCompensated(const SensitivityInputs& inputs, ProgressSink& progress) {
  const QuantizedLayers quantized = FitAllWidths(inputs);
  const LayerFits fits{{}, inputs.widths, quantized.fits};
  SensitivityInputs layers = inputs;  // the same images and scales in both passes
  layers.fits = &fits;
  layers.displacements = nullptr;
  AllocationProblem problem = MeasurePredictive(layers, progress);
  const LayerCodes codes = CompensateAlone(inputs, quantized, progress);
  layers.codes = &codes;
  const AllocationProblem compensated = MeasurePredictive(layers, progress);
  TakeGeometricMean(problem.loss_rise, compensated.loss_rise);
  for (std::size_t r = 0; r < problem.replicates.size(); ++r) {
    TakeGeometricMean(problem.replicates[r], compensated.replicates[r]);
  }
  return problem;
}

}  // namespace bitplan
