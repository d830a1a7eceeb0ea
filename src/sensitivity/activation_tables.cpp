#include "sensitivity/activation_tables.h"

#include <fmt/format.h>

#include <cmath>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "posterior/batches.h"

namespace bitplan {

ActivationRises NoRises(const ActivationLevels& levels) {
  ActivationRises rises{.widths = levels.widths, .tensors = levels.tensors, .loss_rise = {}};
  rises.loss_rise.assign(levels.tensors.size(), std::vector<double>(levels.widths.size(), 0.0));
  return rises;
}

ActivationRises MeasureActivationTable(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                       ProgressSink& progress) {
  const SensitivityMetric& metric = FindSensitivityMetric(inputs.options.metric);
  if (metric.measure_activations == nullptr) {
    throw Error(ErrorKind::kInternal, "the metric " + inputs.options.metric + " has no table of activations");
  }
  if (inputs.train.size() == 0) throw Error(ErrorKind::kData, "sensitivity: the data set has no training images");
  if (metric.needs_gradients) RequireGradients(inputs.network, inputs.train, inputs.normalizer);
  SensitivityInputs within = inputs;
  within.options.samples = SamplesOf(inputs.options);
  ActivationRises rises = metric.measure_activations(within, levels, progress);
  for (std::size_t l = 0; l < rises.loss_rise.size(); ++l) {
    for (std::size_t a = 0; a < rises.widths.size(); ++a) {
      if (std::isfinite(rises.loss_rise[l][a])) continue;
      throw Error(ErrorKind::kData,
                  fmt::format("sensitivity {}: what the input of layer {} costs at {} is not finite: leave that width "
                              "out of allocate.activation_bits",
                              inputs.options.metric, inputs.network.layers[l].name, Counted(rises.widths[a], "bit")));
    }
  }
  return rises;
}

}  // namespace bitplan
