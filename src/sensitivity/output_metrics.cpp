#include "sensitivity/output_metrics.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/one_layer_runs.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kOutputBatch = 64;

constexpr std::int64_t kOutputValues = std::int64_t{1} << 27;  // 512 MiB; reference, gradients and one quantized pass

using Outputs = OneLayerRuns::Outputs;  // [layers][uses]

// One pass; the outputs of every use of every layer. The tensors keep their autograd history.
Outputs RunTapped(const Network& network, torch::jit::Module& module, const torch::Tensor& images,
                  torch::Tensor* logits) {
  Outputs outputs(network.layers.size());
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = [&](std::size_t l, const torch::Tensor& output) { outputs[l].push_back(output); },
                 .on_batch_norm_input = nullptr});
  *logits = RunForward(module, images);
  return outputs;
}

bool Corrects(const SensitivityInputs& inputs) {
  return !inputs.network.batch_norms.empty() && CentringOf(inputs.quantizer).batch_norm;
}

// The layers whose outputs go into a batch norm that the plan will correct (method `transfer`): mean and deviation of a
// channel come back, so only what is left of a change counts. [layers]
std::vector<bool> CorrectedLayers(const SensitivityInputs& inputs) {
  return Corrects(inputs) ? FeedsBatchNorm(inputs.network) : std::vector<bool>(inputs.network.layers.size(), false);
}

// `quantized` with the mean and the deviation that every channel has in `y`, as Transferred has them: a channel that
// has become constant stays so, one that was constant keeps its new deviation.
torch::Tensor Corrected(const torch::Tensor& quantized, const torch::Tensor& y) {
  constexpr float kLeast = std::numeric_limits<float>::min();
  const ChannelStatistics now = StatisticsOf(quantized), wanted = StatisticsOf(y);
  std::vector<std::int64_t> shape(static_cast<std::size_t>(y.dim()), 1);
  shape[1] = y.size(1);
  torch::Tensor ratio = torch::where(now.var.ge(kLeast), wanted.var / now.var, torch::zeros_like(now.var));
  ratio = torch::where(wanted.var.ge(kLeast) & ratio.isfinite(), ratio, torch::ones_like(ratio)).sqrt();
  return (quantized - now.mean.reshape(shape)) * ratio.reshape(shape) + wanted.mean.reshape(shape);
}

// What quantization changes in an output `y` of a layer: nothing where it is the float network's, all of it where the
// quantized network sends other rows there.
torch::Tensor Change(const Outputs& quantized, std::size_t layer, std::size_t use, const torch::Tensor& y,
                     const std::vector<bool>& corrected) {
  if (use < quantized[layer].size() && !quantized[layer][use].defined()) return torch::zeros_like(y);
  const bool pairs = use < quantized[layer].size() && quantized[layer][use].sizes() == y.sizes();
  if (!pairs) return -y;
  // Only where dimension 1 is sure to be the batch norm's channel: [N, C, H, W] and [N, C].
  const bool corrects = corrected[layer] && y.numel() > 0 && (y.dim() == 4 || y.dim() == 2);
  return (corrects ? Corrected(quantized[layer][use], y) : quantized[layer][use]) - y;
}

// An output that the network has ruled out, a logit of -inf, counts nothing.
torch::Tensor WhereFinite(const torch::Tensor& condition, const torch::Tensor& values) {
  return torch::where(condition.isfinite(), values, torch::zeros_like(values));
}

// Images of a minibatch: at most kOutputBatch, and no more than bound the outputs of all layers to kOutputValues.
std::int64_t ImagesOfMinibatch(const Network& network) {
  std::int64_t values = 0;
  for (const Layer& layer : network.layers) values += layer.output_values;
  return std::clamp<std::int64_t>(kOutputValues / std::max<std::int64_t>(1, values), 1, kOutputBatch);
}

// `distance(layer, quantized outputs)` summed over the minibatches, for every layer and width; `begin_batch` sees the
// images of a minibatch, and their rows in the data, first. `reach`: whose outputs the distance looks at.
AllocationProblem MeasureOutputs(
    const char* name, const SensitivityInputs& inputs, ProgressSink& progress, OneLayerRuns::Reach reach,
    const std::function<void(const torch::Tensor& images, const torch::Tensor& rows)>& begin_batch,
    const std::function<double(std::size_t layer, const Outputs& quantized)>& distance) {
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  problem.loss_rise.assign(problem.units.size(), std::vector<double>(inputs.widths.size(), 0.0));
  RandomStream draws(inputs.seed, "sensitivity/samples");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  const std::int64_t step = ImagesOfMinibatch(inputs.network), batches = (index.size(0) + step - 1) / step;
  OneLayerRuns runs(inputs, quantized, Corrects(inputs));
  progress.Begin(std::string("sensitivity ") + name,
                 batches * static_cast<std::int64_t>(problem.units.size() * inputs.widths.size()), "settings");
  for (std::int64_t begin = 0; begin < index.size(0); begin += step) {
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + step, index.size(0)));
    const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, rows));
    begin_batch(images, rows);
    const double share = static_cast<double>(rows.size(0)) / static_cast<double>(index.size(0));
    runs.LayerOutputs(images, reach, [&](std::size_t l, std::size_t k, const Outputs& outputs) {
      problem.loss_rise[l][k] += distance(l, outputs) * share;
      progress.Advance(1);
    });
  }
  progress.End("");
  return problem;
}

}  // namespace

AllocationProblem MeasureActivationDistance(const SensitivityInputs& inputs, ProgressSink& progress) {
  const std::vector<bool> corrected = CorrectedLayers(inputs);
  Outputs reference;
  const auto begin_batch = [&](const torch::Tensor& images, const torch::Tensor& rows) {
    const torch::NoGradGuard no_grad;
    torch::jit::Module module = inputs.network.module;
    torch::Tensor logits;
    reference = RunTapped(inputs.network, module, images, &logits);
    RequireSound(logits, module, inputs.train, rows, inputs.normalizer);
  };
  const auto distance = [&](std::size_t, const Outputs& quantized) {
    double total = 0.0, points = 0.0;
    for (std::size_t l = 0; l < reference.size(); ++l) {
      for (std::size_t use = 0; use < reference[l].size(); ++use, points += 1.0) {
        const torch::Tensor& y = reference[l][use];
        const double power = WhereFinite(y, y).square().sum(torch::kFloat64).item<double>();
        const double error =
            WhereFinite(y, Change(quantized, l, use, y, corrected)).square().sum(torch::kFloat64).item<double>();
        if (power > 0.0) total += error / power;
      }
    }
    return total / std::max(points, 1.0);
  };
  return MeasureOutputs("activation-distance", inputs, progress, OneLayerRuns::Reach::kNetwork, begin_batch, distance);
}

AllocationProblem MeasureOutputFisher(const SensitivityInputs& inputs, ProgressSink& progress) {
  const std::vector<bool> corrected = CorrectedLayers(inputs);
  Outputs reference, gradients;
  std::int64_t count = 0;  // images of the minibatch
  const auto begin_batch = [&](const torch::Tensor& images, const torch::Tensor& rows) {
    count = images.size(0);
    torch::jit::Module module = inputs.network.module;
    const GradientScope scope(inputs.network);
    torch::Tensor logits;
    reference = RunTapped(inputs.network, module, images, &logits);
    RequireSound(logits, module, inputs.train, rows, inputs.normalizer);
    const torch::Tensor labels = inputs.train.labels.index_select(0, rows);
    const torch::Tensor loss = inputs.train.Task().Loss(logits, labels, /*mean=*/false);
    std::vector<torch::Tensor> flat;
    for (const auto& uses : reference) flat.insert(flat.end(), uses.begin(), uses.end());
    const auto by_output = GradientsOf(loss, flat);
    gradients = reference;
    std::size_t next = 0;
    for (auto& uses : gradients) {
      for (torch::Tensor& gradient : uses) gradient = by_output[next++];
    }
    for (auto& uses : reference) {
      for (torch::Tensor& output : uses) output = output.detach();
    }
  };
  const auto distance = [&](std::size_t layer, const Outputs& quantized) {
    double total = 0.0;
    for (std::size_t use = 0; use < reference[layer].size(); ++use) {
      const torch::Tensor& y = reference[layer][use];
      const torch::Tensor change = WhereFinite(y, Change(quantized, layer, use, y, corrected) * gradients[layer][use]);
      total += 0.5 * change.square().sum(torch::kFloat64).item<double>() / static_cast<double>(count);
    }
    return total;
  };
  return MeasureOutputs("fisher-output", inputs, progress, OneLayerRuns::Reach::kLayer, begin_batch, distance);
}

}  // namespace bitplan
