#include "bitplan/sensitivity/sensitivity.h"

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "sensitivity/gradient_metric.h"
#include "sensitivity/hawq_metric.h"
#include "sensitivity/measured_metric.h"
#include "sensitivity/output_metrics.h"
#include "sensitivity/posterior_metric.h"
#include "sensitivity/predictive_metric.h"

namespace bitplan {

const std::vector<SensitivityMetric>& SensitivityMetrics() {
  static const std::vector<SensitivityMetric> list = {
      {"posterior", "likelihood information of the posterior along the actual rounding errors", true, MeasurePosterior},
      {"measured", "divergence of the predictions when one layer alone is quantized", false, MeasureByQuantizing},
      {"predictive", "divergence of the corrected predictions, and how it adds up over layers", false,
       MeasurePredictive, true, 512},
      {"hawq", "mean Hessian trace times squared weight error (HAWQ-V2)", false, MeasureHessianTrace, false, 512},
      {"activation-distance", "relative error of all layers' outputs when one is quantized (as MCT)", false,
       MeasureActivationDistance, false, 256},
      {"gradient", "sum of |gradient x weight error| (as AutoRound)", false, MeasureGradientProduct},
      {"fisher-output", "squared gradient x output error of the quantized layer (as ModelOpt)", false,
       MeasureOutputFisher, false, 256},
  };
  return list;
}

const SensitivityMetric& FindSensitivityMetric(const std::string& name) {
  return FindByName(SensitivityMetrics(), "sensitivity metric", name);
}

AllocationProblem MeasureSensitivity(const SensitivityInputs& inputs, ProgressSink& progress) {
  const SensitivityMetric& metric = FindSensitivityMetric(inputs.options.metric);
  if (metric.needs_posterior && inputs.posterior == nullptr) {
    throw Error(ErrorKind::kUsage, "sensitivity.metric " + inputs.options.metric + " needs a posterior");
  }
  if (inputs.train.size() == 0) throw Error(ErrorKind::kData, "sensitivity: the data set has no training images");
  SensitivityInputs within = inputs;
  if (metric.most_samples > 0) within.options.samples = std::min(within.options.samples, metric.most_samples);
  AllocationProblem problem = metric.measure(within, progress);
  problem.Validate();
  return problem;
}

}  // namespace bitplan
