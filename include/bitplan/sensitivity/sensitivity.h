// From model, posterior and quantizer to the table that allocators see.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/problem.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/posterior/posterior.h"
#include "bitplan/quantizers/layer_fits.h"
#include "bitplan/quantizers/quantized_tensor.h"
#include "bitplan/quantizers/quantizer.h"

namespace bitplan {

struct Displacements;
struct ActivationLevels;  // src/sensitivity/activation_levels.h
struct ActivationRises;   // src/sensitivity/activation_rises.h
class ActivationMeter;

// Every layer quantized at every width, [layers][widths].
using LayerCodes = std::vector<std::vector<QuantizedTensor>>;

struct SensitivityInputs {
  const Network& network;
  const Posterior* posterior;  // null: none was estimated
  const Dataset& train;
  const Normalizer& normalizer;
  const QuantizerOptions& quantizer;
  SensitivityOptions options;
  std::vector<int> widths;
  std::uint64_t seed;
  const std::vector<QuantizerEvidence>* evidence = nullptr;  // of every layer, for the quantizer's range; null: none
  const LayerFits* fits = nullptr;         // of `network` at `widths` by `quantizer` and `evidence`; null: found here
  const LayerCodes* codes = nullptr;       // at `widths`; null: the nearest levels by `fits`
  Displacements* displacements = nullptr;  // filled by a metric that keeps them (sensitivity/displacements.h)
  // What rounding activations costs, measured in the same passes by a metric that has backward passes for weights, or
  // null (src/sensitivity/activation_rises.h).
  ActivationMeter* activations = nullptr;
};

struct SensitivityMetric {
  const char* name;
  const char* description;
  bool needs_posterior;
  AllocationProblem (*measure)(const SensitivityInputs& inputs, ProgressSink& progress);
  bool keeps_displacements = false;
  int most_samples = 0;  // no more images are looked at, whatever options.samples says; 0: no limit
  bool needs_gradients = false;
  bool takes_activations = false;  // SensitivityInputs::activations, unless options.coherence is off
  // What rounding each tensor of activations alone costs, in the unit of `measure`; null: not known, or measured as
  // `takes_activations` says (src/sensitivity/activation_tables.h).
  ActivationRises (*measure_activations)(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                         ProgressSink& progress) = nullptr;
};

[[nodiscard]] const std::vector<SensitivityMetric>& SensitivityMetrics();
[[nodiscard]] const SensitivityMetric& FindSensitivityMetric(const std::string& name);  // Error(kUsage)
// Images that the metric looks at, if there are as many.
[[nodiscard]] int SamplesOf(const SensitivityOptions& options);
[[nodiscard]] AllocationProblem MeasureSensitivity(const SensitivityInputs& inputs, ProgressSink& progress);

}  // namespace bitplan
