#include "bitplan/sensitivity/sensitivity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "posterior/batches.h"
#include "sensitivity/activation_tables.h"
#include "sensitivity/compensated_metric.h"
#include "sensitivity/gradient_metric.h"
#include "sensitivity/hawq_metric.h"
#include "sensitivity/measured_metric.h"
#include "sensitivity/output_metrics.h"
#include "sensitivity/posterior_metric.h"
#include "sensitivity/predictive_metric.h"

namespace bitplan {

const std::vector<SensitivityMetric>& SensitivityMetrics() {
  static const std::vector<SensitivityMetric> list = {
      {"posterior", "likelihood information of the posterior along the actual rounding errors", true, MeasurePosterior,
       false, 0, false, true},
      {"measured", "divergence of the predictions when one layer alone is quantized", false, MeasureByQuantizing, false,
       0, false, false, MeasureActivationsByRounding},
      {"predictive", "divergence of the corrected predictions, and how it adds up over layers", false,
       MeasurePredictive, true, 512, false, false, MeasureActivationsPredictive},
      {"compensated", "divergence of the corrected predictions, between nearest and compensated levels of a layer",
       false, MeasureCompensated, false, 512},
      {"hawq", "mean Hessian trace times squared weight error (HAWQ-V2)", false, MeasureHessianTrace, false, 512, true,
       false, MeasureActivationTrace},
      {"activation-distance", "relative error of all layers' outputs when one is quantized (as MCT)", false,
       MeasureActivationDistance, false, 256, false, false, MeasureActivationDistanceOfReads},
      {"gradient", "sum of |gradient x weight error| (as AutoRound)", false, MeasureGradientProduct, false, 0, true,
       false, MeasureActivationGradients},
      {"fisher-output", "squared gradient x output error of the quantized layer (as ModelOpt)", false,
       MeasureOutputFisher, false, 256, true, false, MeasureOutputFisherOfReads},
  };
  return list;
}

const SensitivityMetric& FindSensitivityMetric(const std::string& name) {
  return FindByName(SensitivityMetrics(), "sensitivity metric", name);
}

int SamplesOf(const SensitivityOptions& options) {
  const int most = FindSensitivityMetric(options.metric).most_samples;
  return most > 0 ? std::min(options.samples, most) : options.samples;
}

AllocationProblem MeasureSensitivity(const SensitivityInputs& inputs, ProgressSink& progress) {
  const SensitivityMetric& metric = FindSensitivityMetric(inputs.options.metric);
  if (metric.needs_posterior && inputs.posterior == nullptr) {
    throw Error(ErrorKind::kUsage, "sensitivity.metric " + inputs.options.metric + " needs a posterior");
  }
  if (inputs.train.size() == 0) throw Error(ErrorKind::kData, "sensitivity: the data set has no training images");
  if (metric.needs_gradients) RequireGradients(inputs.network, inputs.train, inputs.normalizer);
  SensitivityInputs within = inputs;
  within.options.samples = SamplesOf(inputs.options);
  AllocationProblem problem = metric.measure(within, progress);
  for (std::size_t l = 0; l < problem.loss_rise.size(); ++l) {
    for (std::size_t k = 0; k < problem.widths.size(); ++k) {
      if (std::isfinite(problem.loss_rise[l][k])) continue;
      throw Error(ErrorKind::kData,
                  fmt::format("sensitivity {}: what layer {} costs at {} is not finite: the network's answers are "
                              "not, once it is quantized so; leave that width out of allocate.bits, or the layer out "
                              "of the plan with allocate.exclude",
                              inputs.options.metric, problem.units[l].name, Counted(problem.widths[k], "bit")));
    }
  }
  problem.Validate();
  return problem;
}

}  // namespace bitplan
