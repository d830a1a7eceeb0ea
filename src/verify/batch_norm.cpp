#include "bitplan/verify/batch_norm.h"

#include <torch/torch.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"
#include "bitplan/verify/evaluate.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBatch = 256;
constexpr const char* kMethods[] = {"off", "re-estimate", "transfer"};

struct Statistics {
  torch::Tensor mean, var;  // float32 [channels]
};

Statistics OfInput(const torch::Tensor& input) {
  std::vector<std::int64_t> dims = {0};
  for (std::int64_t d = 2; d < input.dim(); ++d) dims.push_back(d);
  const auto [var, mean] = torch::var_mean(input, dims, /*unbiased=*/false);
  return {mean, var};
}

// The buffers of every batch norm, cloned.
std::vector<Statistics> Buffers(const Network& network, const torch::jit::Module& module) {
  std::vector<Statistics> buffers;
  for (const BatchNorm& norm : network.batch_norms) {
    buffers.push_back({GetTensor(module, norm.running_mean).clone(), GetTensor(module, norm.running_var).clone()});
  }
  return buffers;
}

void Write(const Network& network, torch::jit::Module& module, std::size_t index, const Statistics& statistics) {
  GetTensor(module, network.batch_norms[index].running_mean).copy_(statistics.mean);
  GetTensor(module, network.batch_norms[index].running_var).copy_(statistics.var);
}

// Input statistics of every batch norm of the float network, over all images, pooled from minibatches.
std::vector<Statistics> FloatStatistics(const Network& network, const torch::Tensor& images) {
  torch::jit::Module module = network.module;
  std::vector<Statistics> sums(network.batch_norms.size());  // of mean and of mean square, weighted with the batch
  double share = 0.0;
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
                   const Statistics batch = OfInput(input);
                   const torch::Tensor square = batch.var + batch.mean.square();
                   Statistics& sum = sums[index];
                   sum.mean = sum.mean.defined() ? sum.mean.add_(batch.mean, share) : batch.mean * share;
                   sum.var = sum.var.defined() ? sum.var.add_(square, share) : square * share;
                 }});
  for (std::int64_t begin = 0; begin < images.size(0); begin += kBatch) {
    ThrowIfInterrupted();
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + kBatch, images.size(0)));
    share = static_cast<double>(batch.size(0)) / static_cast<double>(images.size(0));
    module.forward({batch});
  }
  for (Statistics& statistics : sums) {
    if (statistics.mean.defined()) statistics.var.sub_(statistics.mean.square()).clamp_min_(0.0);
  }
  return sums;
}

// One pass over all images at once; every batch norm is rewritten just before it runs.
void CorrectInOrder(const Network& network, torch::jit::Module& quantized, const std::string& method,
                    const std::vector<Statistics>& original, const std::vector<Statistics>& in_float,
                    const torch::Tensor& images) {
  const Tap tap(network, quantized,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
                   Statistics now = OfInput(input);
                   if (method == "transfer") {
                     const Statistics& before = original[index];
                     const Statistics& reference = in_float[index];
                     now.mean = before.mean + now.mean - reference.mean;
                     now.var = torch::where(reference.var > 0, before.var * now.var / reference.var, before.var);
                   }
                   Write(network, quantized, index, now);
                 }});
  ThrowIfInterrupted();
  quantized.forward({images});
}

double CalibrationNll(const torch::jit::Module& module, const Dataset& calibration, const Normalizer& normalizer,
                      ProgressSink& progress) {
  const torch::Tensor logits = PredictLogits(module, calibration, normalizer, kBatch, "calibration", progress);
  return EvaluateLogits(logits, calibration.labels).metrics.nll;
}

}  // namespace

BatchNormCorrection CorrectBatchNorm(const Network& network, torch::jit::Module& quantized,
                                     const QuantizerOptions& options, const torch::Tensor& images,
                                     const Dataset& calibration, const Normalizer& normalizer, ProgressSink& progress) {
  BatchNormCorrection correction;
  if (options.batch_norm == "off" || network.batch_norms.empty()) return correction;
  if (options.batch_norm == "auto" && calibration.size() == 0) {
    throw Error(ErrorKind::kUsage, "quantizer.batch_norm auto needs calibration images; set data.calibration");
  }
  if (images.size(0) == 0) throw Error(ErrorKind::kUsage, "quantizer.batch_norm_samples must be > 0 to correct");

  const torch::NoGradGuard no_grad;
  const std::vector<Statistics> original = Buffers(network, quantized);
  const auto restore = [&](const std::vector<Statistics>& buffers) {
    for (std::size_t i = 0; i < buffers.size(); ++i) Write(network, quantized, i, buffers[i]);
  };
  const std::vector<Statistics> in_float = FloatStatistics(network, images);
  if (options.batch_norm != "auto") {
    correction.chosen = options.batch_norm;
    CorrectInOrder(network, quantized, options.batch_norm, original, in_float, images);
    return correction;
  }
  std::vector<std::vector<Statistics>> candidates;
  for (const char* method : kMethods) {
    restore(original);
    if (std::string(method) != "off") CorrectInOrder(network, quantized, method, original, in_float, images);
    candidates.push_back(Buffers(network, quantized));
    correction.calibration_nll.push_back(CalibrationNll(quantized, calibration, normalizer, progress));
  }
  const auto best = std::min_element(correction.calibration_nll.begin(), correction.calibration_nll.end()) -
                    correction.calibration_nll.begin();
  restore(candidates[static_cast<std::size_t>(best)]);
  correction.chosen = kMethods[best];
  return correction;
}

}  // namespace bitplan
