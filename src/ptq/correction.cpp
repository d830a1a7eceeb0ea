#include "bitplan/ptq/correction.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"
#include "bitplan/verify/evaluate.h"
#include "ptq/float_pass.h"
#include "ptq/output_fit.h"
#include "ptq/transferred_pass.h"
#include "quantizers/held_scales.h"

namespace bitplan {
namespace {

constexpr std::int64_t kEvaluationBatch = 256;

void RequireImages(const torch::Tensor& images) {
  if (images.size(0) == 0) throw Error(ErrorKind::kUsage, "quantizer.correction_samples must be > 0 to correct");
}

// Tries methods on one quantized network; the tensors that a correction writes are put back before each.
class Corrector {
 public:
  // `weights`: codes and scales of every layer, undefined for one in float [layers]; `changed`: the layers whose
  // outputs may be fitted [layers].
  Corrector(const Network& network, torch::jit::Module& quantized, std::vector<QuantizedTensor>& weights,
            const std::vector<bool>& changed, const QuantizerOptions& options, FloatSide::Pass& reference,
            std::shared_ptr<const TransferredPass> transferred = nullptr)
      : network_(network),
        quantized_(quantized),
        weights_(weights),
        options_(options),
        reference_(reference),
        transferred_(std::move(transferred)) {
    reference_.Prepare({}, options.output_correction != "off" ? changed : std::vector<bool>());
    for (const BatchNorm& norm : network.batch_norms) {
      slots_.push_back(GetTensor(quantized, norm.running_mean));
      slots_.push_back(GetTensor(quantized, norm.running_var));
    }
    for (const std::size_t index : reference_.outputs().layers()) {
      slots_.push_back(GetTensor(quantized, network.layers[index].parameter));
      if (weights_[index].defined()) {
        weights_[index].scales = weights_[index].scales.clone();
        slots_.push_back(weights_[index].scales);
      }
      if (!network.layers[index].bias.empty()) slots_.push_back(GetTensor(quantized, network.layers[index].bias));
    }
    original_ = Values();
  }

  [[nodiscard]] bool FitsOutputs() const { return !reference_.outputs().layers().empty(); }

  [[nodiscard]] std::vector<torch::Tensor> Values() const {
    std::vector<torch::Tensor> values;
    for (const torch::Tensor& slot : slots_) values.push_back(slot.clone());
    return values;
  }

  void Write(const std::vector<torch::Tensor>& values) {
    for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].copy_(values[i]);
  }

  // One pass over all images at once, unless rounding has made it.
  void Apply(const CorrectionMethod& method) {
    Write(original_);
    if (method.batch_norm == "off" && method.outputs == "off") return;
    if (method.batch_norm == "transfer" && transferred_ != nullptr) {
      const bool fits = method.outputs == "fit";
      if (transferred_->Serves(fits ? reference_.outputs().layers() : std::vector<std::size_t>())) {
        TakeFrom(*transferred_, fits);
        return;
      }
    }
    TapHandlers handlers;
    if (method.batch_norm != "off") {
      handlers.on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
        CorrectBatchNorm(index, input, method.batch_norm == "transfer");
      };
    }
    if (method.outputs == "fit") {
      handlers.on_layer_output = [&](std::size_t index, const torch::Tensor& output) {
        if (const auto pair = reference_.outputs().Find(index, output)) {
          Scale(index, FitOutput(network_.layers[index], quantized_, *pair, output, options_.granularity == "tensor",
                                 LimitOf(index)));
        }
      };
    }
    ThrowIfInterrupted();
    const Tap tap(network_, quantized_, std::move(handlers));
    (void)RunForward(quantized_, reference_.images());
  }

 private:
  // Factors that leave the scales of a layer such as the consumer of the plan takes them.
  [[nodiscard]] FactorLimit LimitOf(std::size_t index) const {
    const QuantizedTensor& weight = weights_[index];
    const ConsumerLimits& limits = options_.limits;
    if (!weight.defined() || (limits.negative_scales && !limits.float16_scales)) return {};
    return [&weight, &limits](const torch::Tensor& factors) {
      const torch::Tensor ones = torch::ones_like(factors);
      const torch::Tensor signed_right =
          limits.negative_scales ? factors : torch::where(factors.gt(0.0), factors, ones);
      if (!limits.float16_scales) return signed_right;
      const torch::Tensor now = weight.scales.expand_as(factors), then = HeldScales(now * signed_right, limits);
      return torch::where(now.eq(0.0), ones, then / now);
    };
  }

  // The weights of a layer's output channels times `factors`.
  void Scale(std::size_t index, const torch::Tensor& factors) {
    const Layer& layer = network_.layers[index];
    const torch::Tensor slot = GetTensor(quantized_, layer.parameter);
    QuantizedTensor& weight = weights_[index];
    if (weight.defined()) {
      const std::int64_t own = weight.scales.size(0);  // one of a layer, which then has one factor, or one a channel
      if (own != 1 && own != factors.size(0)) throw Error(ErrorKind::kInternal, "factors of other channels");
      weight.scales.copy_(HeldScales(weight.scales * factors.slice(0, 0, own), options_.limits));
      slot.copy_(weight.Values());
      return;
    }
    std::vector<std::int64_t> shape(layer.shape.size(), 1);
    shape[static_cast<std::size_t>(layer.output_dim)] = -1;
    slot.mul_(factors.reshape(shape));
  }

  void TakeFrom(const TransferredPass& pass, bool fits) {
    for (std::size_t i = 0; i < pass.batch_norms().size(); ++i) {
      slots_[2 * i].copy_(pass.batch_norms()[i].mean);
      slots_[2 * i + 1].copy_(pass.batch_norms()[i].var);
    }
    if (!fits) return;
    for (const std::size_t index : reference_.outputs().layers()) {
      const auto& pair = pass.outputs();
      Scale(index, FitOutput(network_.layers[index], quantized_, pair, pair.quantized.clone(),
                             options_.granularity == "tensor", LimitOf(index)));
    }
  }

  // A batch norm that no image reaches, in the float network or in this one, keeps its statistics.
  void CorrectBatchNorm(std::size_t index, const torch::Tensor& input, bool transfer) {
    if (input.numel() == 0 || !reference_.batch_norms()[index].mean.defined()) return;
    ChannelStatistics now = StatisticsOf(input);
    if (transfer) {
      now = Transferred({original_[2 * index], original_[2 * index + 1]}, now, reference_.batch_norms()[index]);
    }
    slots_[2 * index].copy_(now.mean);
    slots_[2 * index + 1].copy_(now.var);
  }

  const Network& network_;
  torch::jit::Module& quantized_;
  std::vector<QuantizedTensor>& weights_;
  const QuantizerOptions& options_;
  FloatSide::Pass& reference_;
  std::shared_ptr<const TransferredPass> transferred_;
  // What a correction may write: mean and variance of every batch norm, then weight, scales and bias of every fitted
  // layer.
  std::vector<torch::Tensor> slots_;
  std::vector<torch::Tensor> original_;
};

double CalibrationNll(const Network& network, const torch::jit::Module& module, const Dataset& calibration,
                      const Normalizer& normalizer, ProgressSink& progress) {
  const int batch = static_cast<int>(std::min(kEvaluationBatch, ImagesAtOnce(network)));
  return Evaluate(module, calibration, normalizer, batch, "calibration", progress).metrics.nll;
}

}  // namespace

Correction CorrectNetwork(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                          const torch::Tensor& images, const Dataset& calibration, const Normalizer& normalizer,
                          ProgressSink& progress) {
  FloatSide reference(network, images);
  return CorrectNetwork(network, applied, options, reference, calibration, normalizer, progress);
}

Correction CorrectNetwork(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                          FloatSide& reference, const Dataset& calibration, const Normalizer& normalizer,
                          ProgressSink& progress) {
  torch::jit::Module& quantized = applied.module;
  Correction correction;
  const std::string batch_norm = network.batch_norms.empty() ? "off" : options.batch_norm;
  if (batch_norm == "off" && options.output_correction == "off") return correction;
  RequireImages(reference.images());

  const torch::NoGradGuard no_grad;
  Corrector corrector(network, quantized, applied.weights, ChangedLayers(network, quantized), options, reference.pass(),
                      std::move(applied.transferred));
  applied.transferred.reset();  // corrections change weights
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
  FloatSide reference(network, images);
  Corrector(network, corrected, in_float, rounded, chosen, reference.pass()).Apply(method);
  RestoreChangedByForward(network, corrected);
  return corrected;
}

}  // namespace bitplan
