#include "sensitivity/output_metrics.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <string>

#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "sensitivity/activation_tables.h"
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

// What a metric makes of the outputs of a network with something quantized.
class OutputComparison {
 public:
  OutputComparison(const SensitivityInputs& inputs, OneLayerRuns::Reach reach)
      : inputs_(inputs), corrected_(CorrectedLayers(inputs)), reach_(reach) {}
  virtual ~OutputComparison() = default;
  OutputComparison(const OutputComparison&) = delete;
  OutputComparison& operator=(const OutputComparison&) = delete;

  // Whose outputs it looks at.
  [[nodiscard]] OneLayerRuns::Reach reach() const { return reach_; }
  // Sees the images of a minibatch, and their rows in the data, first.
  virtual void Begin(const torch::Tensor& images, const torch::Tensor& rows) = 0;
  // Mean over the minibatch; `layers`: those that are quantized, or read what is.
  [[nodiscard]] virtual double Distance(const std::vector<std::size_t>& layers, const Outputs& quantized) const = 0;

 protected:
  const SensitivityInputs& inputs_;
  std::vector<bool> corrected_;
  Outputs reference_;

 private:
  OneLayerRuns::Reach reach_;
};

class RelativeErrors : public OutputComparison {
 public:
  explicit RelativeErrors(const SensitivityInputs& inputs) : OutputComparison(inputs, OneLayerRuns::Reach::kNetwork) {}

  void Begin(const torch::Tensor& images, const torch::Tensor& rows) override {
    const torch::NoGradGuard no_grad;
    torch::jit::Module module = inputs_.network.module;
    torch::Tensor logits;
    reference_ = RunTapped(inputs_.network, module, images, &logits);
    RequireSound(logits, module, inputs_.train, rows, inputs_.normalizer);
  }

  [[nodiscard]] double Distance(const std::vector<std::size_t>&, const Outputs& quantized) const override {
    double total = 0.0, points = 0.0;
    for (std::size_t l = 0; l < reference_.size(); ++l) {
      for (std::size_t use = 0; use < reference_[l].size(); ++use, points += 1.0) {
        const torch::Tensor& y = reference_[l][use];
        const double power = WhereFinite(y, y).square().sum(torch::kFloat64).item<double>();
        const double error =
            WhereFinite(y, Change(quantized, l, use, y, corrected_)).square().sum(torch::kFloat64).item<double>();
        if (power > 0.0) total += error / power;
      }
    }
    return total / std::max(points, 1.0);
  }
};

class FisherErrors : public OutputComparison {
 public:
  explicit FisherErrors(const SensitivityInputs& inputs) : OutputComparison(inputs, OneLayerRuns::Reach::kLayer) {}

  void Begin(const torch::Tensor& images, const torch::Tensor& rows) override {
    count_ = images.size(0);
    torch::jit::Module module = inputs_.network.module;
    const GradientScope scope(inputs_.network);
    torch::Tensor logits;
    reference_ = RunTapped(inputs_.network, module, images, &logits);
    RequireSound(logits, module, inputs_.train, rows, inputs_.normalizer);
    const torch::Tensor labels = inputs_.train.labels.index_select(0, rows);
    const torch::Tensor loss = inputs_.train.Task().Loss(logits, labels, /*mean=*/false);
    std::vector<torch::Tensor> flat;
    for (const auto& uses : reference_) flat.insert(flat.end(), uses.begin(), uses.end());
    const auto by_output = GradientsOf(loss, flat);
    gradients_ = reference_;
    std::size_t next = 0;
    for (auto& uses : gradients_) {
      for (torch::Tensor& gradient : uses) gradient = by_output[next++];
    }
    for (auto& uses : reference_) {
      for (torch::Tensor& output : uses) output = output.detach();
    }
  }

  [[nodiscard]] double Distance(const std::vector<std::size_t>& layers, const Outputs& quantized) const override {
    double total = 0.0;
    for (const std::size_t layer : layers) {
      for (std::size_t use = 0; use < reference_[layer].size(); ++use) {
        const torch::Tensor& y = reference_[layer][use];
        const torch::Tensor change =
            WhereFinite(y, Change(quantized, layer, use, y, corrected_) * gradients_[layer][use]);
        total += 0.5 * change.square().sum(torch::kFloat64).item<double>() / static_cast<double>(count_);
      }
    }
    return total;
  }

 private:
  Outputs gradients_;
  std::int64_t count_ = 0;  // images of the minibatch
};

// Adds to `table` the distances of all settings of `runs`, mean over the images. `read_by`: of every layer, or tensor
// at its first reader, the layers that are quantized or read it.
void MeasureOutputs(const std::string& name, const SensitivityInputs& inputs, OneLayerRuns& runs,
                    const std::vector<std::vector<std::size_t>>& read_by, std::int64_t settings,
                    OutputComparison& comparison, std::vector<std::vector<double>>& table, ProgressSink& progress) {
  RandomStream draws(inputs.seed, "sensitivity/samples");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  const std::int64_t step = ImagesOfMinibatch(inputs.network), batches = (index.size(0) + step - 1) / step;
  progress.Begin("sensitivity " + name, batches * settings, "settings");
  for (std::int64_t begin = 0; begin < index.size(0); begin += step) {
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + step, index.size(0)));
    const torch::Tensor images = inputs.normalizer.Apply(inputs.train.images.index_select(0, rows));
    comparison.Begin(images, rows);
    const double share = static_cast<double>(rows.size(0)) / static_cast<double>(index.size(0));
    runs.LayerOutputs(images, comparison.reach(), [&](std::size_t l, std::size_t k, const Outputs& outputs) {
      table[l][k] += comparison.Distance(read_by[l], outputs) * share;
      progress.Advance(1);
    });
  }
  progress.End("");
}

AllocationProblem OutputTable(const char* name, const SensitivityInputs& inputs, OutputComparison& comparison,
                              ProgressSink& progress) {
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  const std::size_t layers = problem.units.size(), widths = inputs.widths.size();
  problem.loss_rise.assign(layers, std::vector<double>(widths, 0.0));
  std::vector<std::vector<std::size_t>> itself;
  for (std::size_t l = 0; l < layers; ++l) itself.push_back({l});
  OneLayerRuns runs(inputs, quantized, Corrects(inputs));
  MeasureOutputs(name, inputs, runs, itself, static_cast<std::int64_t>(layers * widths), comparison, problem.loss_rise,
                 progress);
  return problem;
}

ActivationRises OutputTableOfReads(const char* name, const SensitivityInputs& inputs, const ActivationLevels& levels,
                                   OutputComparison& comparison, ProgressSink& progress) {
  ActivationRises rises = NoRises(levels);
  std::vector<std::vector<std::size_t>> read_by(levels.tensors.size());
  std::int64_t settings = 0;
  for (std::size_t l = 0; l < levels.tensors.size(); ++l) {
    read_by[levels.tensors[l]].push_back(l);
    settings += std::ssize(levels.quantizers[l]);
  }
  OneLayerRuns runs(inputs, levels, Corrects(inputs));
  MeasureOutputs(std::string(name) + " of activations", inputs, runs, read_by, settings, comparison, rises.loss_rise,
                 progress);
  return rises;
}

}  // namespace

AllocationProblem MeasureActivationDistance(const SensitivityInputs& inputs, ProgressSink& progress) {
  RelativeErrors comparison(inputs);
  return OutputTable("activation-distance", inputs, comparison, progress);
}

AllocationProblem MeasureOutputFisher(const SensitivityInputs& inputs, ProgressSink& progress) {
  FisherErrors comparison(inputs);
  return OutputTable("fisher-output", inputs, comparison, progress);
}

ActivationRises MeasureActivationDistanceOfReads(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                                 ProgressSink& progress) {
  RelativeErrors comparison(inputs);
  return OutputTableOfReads("activation-distance", inputs, levels, comparison, progress);
}

ActivationRises MeasureOutputFisherOfReads(const SensitivityInputs& inputs, const ActivationLevels& levels,
                                           ProgressSink& progress) {
  FisherErrors comparison(inputs);
  return OutputTableOfReads("fisher-output", inputs, levels, comparison, progress);
}

}  // namespace bitplan
