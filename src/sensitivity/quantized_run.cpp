#include "sensitivity/quantized_run.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/tap.h"
#include "posterior/batches.h"

namespace bitplan {
namespace {

constexpr std::int64_t kRunBatch = 128;

}  // namespace

QuantizedRun::QuantizedRun(const SensitivityInputs& inputs, std::int64_t samples, const char* stream)
    : inputs_(inputs),
      quantized_(FitAllWidths(inputs)),
      module_(CloneModule(inputs.network.module)),
      columns_(inputs.network.layers.size(), kFloat),
      correct_(!inputs.network.batch_norms.empty() && CentringOf(inputs.quantizer).batch_norm) {
  const torch::NoGradGuard no_grad;
  RandomStream draws(inputs.seed, stream);
  if (correct_) samples = std::min(samples, ImagesAtOnce(inputs.network));  // they all pass at once
  index_ = DrawSamples(inputs.train, std::max<std::int64_t>(1, samples), draws);
  images_ = inputs.normalizer.Apply(inputs.train.images.index_select(0, index_));
  labels_ = inputs.train.labels.index_select(0, index_);
  if (!correct_) return;
  for (const BatchNorm& norm : inputs.network.batch_norms) {
    trained_.push_back({GetTensor(module_, norm.running_mean).clone(), GetTensor(module_, norm.running_var).clone()});
  }
}

std::vector<ChannelStatistics> QuantizedRun::FloatStatistics(std::int64_t count) const {
  std::vector<ChannelStatistics> statistics(inputs_.network.batch_norms.size());
  torch::jit::Module module = inputs_.network.module;
  const Tap tap(inputs_.network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
                   if (input.numel() > 0) statistics[index] = StatisticsOf(input);
                 }});
  (void)RunForward(module, images_.slice(0, 0, count));
  return statistics;
}

void QuantizedRun::Set(std::size_t layer, int column) {
  if (columns_[layer] == column) return;
  const torch::NoGradGuard no_grad;
  const Layer& described = inputs_.network.layers[layer];
  const torch::Tensor slot = GetTensor(module_, described.parameter);
  if (column == kFloat) {
    slot.copy_(GetTensor(inputs_.network.module, described.parameter));
  } else {
    const QuantizedWeight& fit = quantized_.fits[layer][static_cast<std::size_t>(column)];
    slot.copy_(quantized_.rows[layer].Values(fit));
  }
  columns_[layer] = column;
}

torch::Tensor QuantizedRun::Corrected(const torch::Tensor& images) {
  auto& reference = reference_[images.size(0)];
  if (reference.empty()) reference = FloatStatistics(images.size(0));
  const Tap tap(inputs_.network, module_,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
                   const bool reached = input.numel() > 0 && reference[index].mean.defined();
                   const auto moved =
                       reached ? Transferred(trained_[index], StatisticsOf(input), reference[index]) : trained_[index];
                   const BatchNorm& norm = inputs_.network.batch_norms[index];
                   GetTensor(module_, norm.running_mean).copy_(moved.mean);
                   GetTensor(module_, norm.running_var).copy_(moved.var);
                 }});
  return RunForward(module_, images);
}

torch::Tensor QuantizedRun::Logits(std::int64_t first) {
  ThrowIfInterrupted();
  const torch::NoGradGuard no_grad;
  const std::int64_t count = first > 0 ? std::min(first, images_.size(0)) : images_.size(0);
  if (correct_) return Corrected(images_.slice(0, 0, count));
  std::vector<torch::Tensor> parts;
  const std::int64_t step = std::min(kRunBatch, ImagesAtOnce(inputs_.network));
  for (std::int64_t begin = 0; begin < count; begin += step) {
    ThrowIfInterrupted();
    parts.push_back(RunForward(module_, images_.slice(0, begin, std::min(begin + step, count))));
  }
  return torch::cat(parts);
}

}  // namespace bitplan
