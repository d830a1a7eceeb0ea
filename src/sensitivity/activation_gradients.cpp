#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/activation_tables.h"
#include "sensitivity/read_watch.h"
#include "sensitivity/sketch_draws.h"

namespace bitplan {
namespace {

// `visit` sees the tensors that layers read in every minibatch, and the gradient of `scalar_of(rows)` with respect to
// them.
void ForEachGradient(
    const SensitivityInputs& inputs, const ActivationLevels& levels, SketchDraws& draws, ProgressSink& progress,
    const std::function<torch::Tensor(const torch::Tensor& rows)>& scalar_of,
    const std::function<void(std::size_t tensor, const torch::Tensor& values, const torch::Tensor& gradient)>& visit) {
  const GradientScope scope(inputs.network);
  ReadWatch watch(inputs.network, levels.tensors);
  progress.Begin("sensitivity " + inputs.options.metric + " of activations", draws.samples(), "images");
  for (std::int64_t begin = 0; begin < draws.samples(); begin += kSketchBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = draws.Rows(begin);
    const torch::Tensor scalar = scalar_of(rows);
    const auto reads = watch.Take();
    std::vector<torch::Tensor> values;
    for (const auto& read : reads) values.push_back(read.values);
    const auto gradients = GradientsOf(scalar, values);
    watch.Forget();
    if (!AreFinite(gradients)) {
      throw Error(ErrorKind::kData, "sensitivity of activations: a gradient is not finite on training images");
    }
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < reads.size(); ++i) visit(reads[i].tensor, values[i].detach(), gradients[i]);
    progress.Advance(rows.size(0));
  }
  progress.End("");
}

double SumOf(const torch::Tensor& values) { return values.sum(torch::kFloat64).item<double>(); }

}  // namespace

ActivationRises MeasureActivationTrace(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                       ProgressSink& progress) {
  ActivationRises rises = NoRises(levels);
  std::vector<double> traces(levels.tensors.size(), 0.0), numbers(levels.tensors.size(), 0.0);  // sums over images
  SketchDraws draws(inputs);
  ForEachGradient(
      inputs, levels, draws, progress, [&](const torch::Tensor& rows) { return draws.Sketch(rows); },
      [&](std::size_t tensor, const torch::Tensor& values, const torch::Tensor& gradient) {
        traces[tensor] += SumOf(gradient.square());
        numbers[tensor] += static_cast<double>(values.numel());
        for (std::size_t a = 0; a < levels.widths.size(); ++a) {
          rises.loss_rise[tensor][a] += SumOf(levels.quantizers[tensor][a].Apply(values).sub_(values).square_());
        }
      });
  const auto images = static_cast<double>(draws.samples());
  for (std::size_t t = 0; t < traces.size(); ++t) {
    const double mean_curvature = numbers[t] > 0.0 ? traces[t] / numbers[t] : 0.0;
    for (double& rise : rises.loss_rise[t]) rise *= 0.5 * mean_curvature / images;
  }
  return rises;
}

ActivationRises MeasureActivationGradients(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                           ProgressSink& progress) {
  ActivationRises rises = NoRises(levels);
  SketchDraws draws(inputs);
  const auto images = static_cast<double>(draws.samples());
  ForEachGradient(
      inputs, levels, draws, progress,
      [&](const torch::Tensor& rows) {
        const torch::Tensor batch = inputs.normalizer.Apply(inputs.train.images.index_select(0, rows));
        return inputs.train.Task().Loss(RunForward(inputs.network.module, batch),
                                        inputs.train.labels.index_select(0, rows), /*mean=*/false);
      },
      [&](std::size_t tensor, const torch::Tensor& values, const torch::Tensor& gradient) {
        for (std::size_t a = 0; a < levels.widths.size(); ++a) {
          const torch::Tensor error = levels.quantizers[tensor][a].Apply(values).sub_(values);
          rises.loss_rise[tensor][a] += SumOf(error.mul_(gradient).abs_()) / images;
        }
      });
  return rises;
}

}  // namespace bitplan
