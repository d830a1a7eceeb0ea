#include "bitplan/ptq/correction.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"
#include "bitplan/verify/evaluate.h"
#include "ptq/output_fit.h"
#include "ptq/statistics_pool.h"

namespace bitplan {
namespace {

constexpr std::int64_t kStatisticsBatch = 256;

// What a network computes before any correction, on the images of the correction.
struct FloatReference {
  std::vector<ChannelStatistics> batch_norms;  // input statistics over all images, pooled from minibatches
  OutputReference outputs;
};

// In minibatches, or all images at once where outputs are kept: so will they go through the quantized network.
FloatReference RunFloat(const Network& network, const torch::Tensor& images, OutputReference outputs) {
  torch::jit::Module module = network.module;
  FloatReference reference{{}, std::move(outputs)};
  StatisticsPool pool(network.batch_norms.size());
  double share = 0.0;
  const auto add_statistics = [&](std::size_t index, const torch::Tensor& input) { pool.Add(index, input, share); };
  const auto keep_output = [&](std::size_t layer, const torch::Tensor& output) {
    reference.outputs.Keep(layer, output);
  };
  const Tap tap(network, module,
                {.on_layer_input = nullptr, .on_layer_output = keep_output, .on_batch_norm_input = add_statistics});
  const std::int64_t step = reference.outputs.layers().empty() ? kStatisticsBatch : images.size(0);
  for (std::int64_t begin = 0; begin < images.size(0); begin += step) {
    ThrowIfInterrupted();
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + step, images.size(0)));
    share = static_cast<double>(batch.size(0)) / static_cast<double>(images.size(0));
    (void)RunForward(module, batch);
  }
  reference.batch_norms = pool.Take();
  return reference;
}

// Of every layer, whether quantization changed its weights.
std::vector<bool> ChangedLayers(const Network& network, const torch::jit::Module& quantized) {
  std::vector<bool> changed;
  for (const Layer& layer : network.layers) {
    changed.push_back(!torch::equal(GetTensor(network.module, layer.parameter), GetTensor(quantized, layer.parameter)));
  }
  return changed;
}

void RequireImages(const torch::Tensor& images) {
  if (images.size(0) == 0) throw Error(ErrorKind::kUsage, "quantizer.correction_samples must be > 0 to correct");
}

// Tries methods on one quantized network; the tensors that a correction writes are put back before each.
class Corrector {
 public:
  // `weights`: codes and scales of every layer, undefined for one in float [layers]; `changed`: the layers whose
  // outputs may be fitted [layers].
  Corrector(const Network& network, torch::jit::Module& quantized, std::vector<QuantizedTensor>& weights,
            const std::vector<bool>& changed, const QuantizerOptions& options, const torch::Tensor& images)
      : network_(network), quantized_(quantized), weights_(weights), options_(options), images_(images) {
    OutputReference outputs;
    if (options.output_correction != "off") outputs = OutputReference(network, changed, images);
    reference_ = RunFloat(network, images, std::move(outputs));
    for (const BatchNorm& norm : network.batch_norms) {
      slots_.push_back(GetTensor(quantized, norm.running_mean));
      slots_.push_back(GetTensor(quantized, norm.running_var));
    }
    for (const std::size_t index : reference_.outputs.layers()) {
      slots_.push_back(GetTensor(quantized, network.layers[index].parameter));
      if (weights_[index].defined()) {
        weights_[index].scales = weights_[index].scales.clone();
        slots_.push_back(weights_[index].scales);
      }
      if (!network.layers[index].bias.empty()) slots_.push_back(GetTensor(quantized, network.layers[index].bias));
    }
    original_ = Values();
  }

  [[nodiscard]] bool FitsOutputs() const { return !reference_.outputs.layers().empty(); }

  [[nodiscard]] std::vector<torch::Tensor> Values() const {
    std::vector<torch::Tensor> values;
    for (const torch::Tensor& slot : slots_) values.push_back(slot.clone());
    return values;
  }

  void Write(const std::vector<torch::Tensor>& values) {
    for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].copy_(values[i]);
  }

  // One pass over all images at once.
  void Apply(const CorrectionMethod& method) {
    Write(original_);
    if (method.batch_norm == "off" && method.outputs == "off") return;
    TapHandlers handlers;
    if (method.batch_norm != "off") {
      handlers.on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
        CorrectBatchNorm(index, input, method.batch_norm == "transfer");
      };
    }
    if (method.outputs == "fit") {
      handlers.on_layer_output = [&](std::size_t index, const torch::Tensor& output) {
        if (const auto pair = reference_.outputs.Find(index, output)) {
          Scale(index, FitOutput(network_.layers[index], quantized_, *pair, output, options_.granularity == "tensor"));
        }
      };
    }
    ThrowIfInterrupted();
    const Tap tap(network_, quantized_, std::move(handlers));
    (void)RunForward(quantized_, images_);
  }

 private:
  // The weights of a layer's output channels times `factors`.
  void Scale(std::size_t index, const torch::Tensor& factors) {
    const Layer& layer = network_.layers[index];
    const torch::Tensor slot = GetTensor(quantized_, layer.parameter);
    QuantizedTensor& weight = weights_[index];
    if (weight.defined()) {
      const std::int64_t own = weight.scales.size(0);  // one of a layer, which then has one factor, or one a channel
      if (own != 1 && own != factors.size(0)) throw Error(ErrorKind::kInternal, "factors of other channels");
      weight.scales.mul_(factors.slice(0, 0, own));
      slot.copy_(weight.Values());
      return;
    }
    std::vector<std::int64_t> shape(layer.shape.size(), 1);
    shape[static_cast<std::size_t>(layer.output_dim)] = -1;
    slot.mul_(factors.reshape(shape));
  }

  // A batch norm that no image reaches, in the float network or in this one, keeps its statistics.
  void CorrectBatchNorm(std::size_t index, const torch::Tensor& input, bool transfer) {
    if (input.numel() == 0 || !reference_.batch_norms[index].mean.defined()) return;
    ChannelStatistics now = StatisticsOf(input);
    if (transfer) {
      now = Transferred({original_[2 * index], original_[2 * index + 1]}, now, reference_.batch_norms[index]);
    }
    slots_[2 * index].copy_(now.mean);
    slots_[2 * index + 1].copy_(now.var);
  }

  const Network& network_;
  torch::jit::Module& quantized_;
  std::vector<QuantizedTensor>& weights_;
  const QuantizerOptions& options_;
  const torch::Tensor& images_;
  FloatReference reference_;
  // What a correction may write: mean and variance of every batch norm, then weight, scales and bias of every fitted
  // layer.
  std::vector<torch::Tensor> slots_;
  std::vector<torch::Tensor> original_;
};

double CalibrationNll(const Network& network, const torch::jit::Module& module, const Dataset& calibration,
                      const Normalizer& normalizer, ProgressSink& progress) {
  const int batch = static_cast<int>(std::min(kStatisticsBatch, ImagesAtOnce(network)));
  return Evaluate(module, calibration, normalizer, batch, "calibration", progress).metrics.nll;
}

}  // namespace

Correction CorrectNetwork(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                          const torch::Tensor& images, const Dataset& calibration, const Normalizer& normalizer,
                          ProgressSink& progress) {
  torch::jit::Module& quantized = applied.module;
  Correction correction;
  const std::string batch_norm = network.batch_norms.empty() ? "off" : options.batch_norm;
  if (batch_norm == "off" && options.output_correction == "off") return correction;
  RequireImages(images);

  const torch::NoGradGuard no_grad;
  Corrector corrector(network, quantized, applied.weights, ChangedLayers(network, quantized), options, images);
  const std::string outputs = corrector.FitsOutputs() ? options.output_correction : "off";
  if (batch_norm != "auto" && outputs != "auto") {
    correction.chosen = {batch_norm, outputs};
    corrector.Apply(correction.chosen);
    return correction;
  }
  if (calibration.size() == 0) {
    throw Error(ErrorKind::kUsage, std::string("quantizer.") +
                                       (batch_norm == "auto" ? "batch_norm" : "output_correction") +
                                       " auto needs calibration images; set data.calibration");
  }
  std::vector<torch::Tensor> best;
  double least = 0.0;
  const auto attempt = [&](const CorrectionMethod& method) {
    corrector.Apply(method);
    const double nll = CalibrationNll(network, quantized, calibration, normalizer, progress);
    correction.candidates.push_back({method, nll});
    if (best.empty() || nll < least) {
      least = nll;
      best = corrector.Values();
      correction.chosen = method;
    }
  };
  const std::string first_outputs = outputs == "fit" ? "fit" : "off";
  const std::vector<std::string> batch_norms =
      batch_norm == "auto" ? std::vector<std::string>{"off", "re-estimate", "transfer"} : std::vector{batch_norm};
  for (const std::string& method : batch_norms) attempt({method, first_outputs});
  if (outputs == "auto") attempt({correction.chosen.batch_norm, "fit"});
  corrector.Write(best);
  return correction;
}

bool ChangesFloat(const CorrectionMethod& method) { return method.batch_norm == "re-estimate"; }

torch::jit::Module CorrectFloat(const Network& network, const CorrectionMethod& method,
                                const std::vector<bool>& rounded, const QuantizerOptions& options,
                                const torch::Tensor& images) {
  RequireImages(images);
  const torch::NoGradGuard no_grad;
  QuantizerOptions chosen = options;
  chosen.batch_norm = method.batch_norm;
  chosen.output_correction = method.outputs;
  torch::jit::Module corrected = CloneModule(network.module);
  std::vector<QuantizedTensor> in_float(network.layers.size());
  Corrector(network, corrected, in_float, rounded, chosen, images).Apply(method);
  RestoreChangedByForward(network, corrected);
  return corrected;
}

}  // namespace bitplan
