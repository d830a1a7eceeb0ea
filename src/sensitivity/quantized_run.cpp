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
constexpr std::int64_t kKeptOutputs = std::int64_t{1} << 27;  // float32: 512 MiB

// Images whose outputs are kept at once, where an image may have many.
std::int64_t ImagesKept(const SensitivityInputs& inputs) {
  const torch::Tensor image = inputs.normalizer.Apply(inputs.train.images.slice(0, 0, 1));
  return std::max<std::int64_t>(
      1, kKeptOutputs / std::max<std::int64_t>(1, RunForward(inputs.network.module, image).numel()));
}

}  // namespace

QuantizedRun::QuantizedRun(const SensitivityInputs& inputs, std::int64_t samples, const char* stream,
                           const ActivationLevels* activations)
    : inputs_(inputs),
      quantized_(FitAllWidths(inputs)),
      activations_(activations),
      reads_(activations != nullptr ? std::optional<RoundedReads>(inputs.network) : std::nullopt),
      module_(reads_ ? reads_->module() : CloneModule(inputs.network.module)),
      columns_(inputs.network.layers.size(), kFloat),
      correct_(!inputs.network.batch_norms.empty() && CentringOf(inputs.quantizer).batch_norm),
      trained_(inputs.network, module_) {
  const torch::NoGradGuard no_grad;
  RandomStream draws(inputs.seed, stream);
  if (correct_) samples = std::min(samples, ImagesAtOnce(inputs.network));  // they all pass at once
  if (inputs.train.likelihood) samples = std::min(samples, ImagesKept(inputs));
  index_ = DrawSamples(inputs.train, std::max<std::int64_t>(1, samples), draws);
  images_ = inputs.normalizer.Apply(inputs.train.images.index_select(0, index_));
  labels_ = inputs.train.labels.index_select(0, index_);
}

void QuantizedRun::Set(std::size_t layer, int column) {
  if (columns_[layer] == column) return;
  const torch::NoGradGuard no_grad;
  const Layer& described = inputs_.network.layers[layer];
  const torch::Tensor slot = GetTensor(module_, described.parameter);
  if (column == kFloat) {
    slot.copy_(GetTensor(inputs_.network.module, described.parameter));
  } else {
    slot.copy_(quantized_.Values(layer, static_cast<std::size_t>(column)));
  }
  columns_[layer] = column;
}

void QuantizedRun::SetActivation(std::size_t tensor, int column) {
  reads_->Set(tensor, column == kFloat ? AffineQuantizer{}
                                       : activations_->quantizers[tensor][static_cast<std::size_t>(column)]);
}

torch::Tensor QuantizedRun::Corrected(const torch::Tensor& images) {
  // The statistics in module_ are the trained ones only until the first pass, so every count shares their copy.
  const auto [transfer, fresh] = transfers_.try_emplace(images.size(0), trained_);
  if (fresh) transfer->second.Begin(images);
  const Tap tap(
      inputs_.network, module_,
      {.on_layer_input = nullptr, .on_layer_output = nullptr, .on_batch_norm_input = transfer->second.Handler()});
  return RunForward(module_, images);
}

std::int64_t QuantizedRun::step() const {
  return correct_ ? images_.size(0) : std::min(kRunBatch, ImagesAtOnce(inputs_.network));
}

torch::Tensor QuantizedRun::Logits(std::int64_t first) {
  ThrowIfInterrupted();
  const torch::NoGradGuard no_grad;
  const std::int64_t count = first > 0 ? std::min(first, images_.size(0)) : images_.size(0);
  if (correct_) return Corrected(images_.slice(0, 0, count));
  std::vector<torch::Tensor> parts;
  for (std::int64_t begin = 0; begin < count; begin += step()) {
    ThrowIfInterrupted();
    parts.push_back(RunForward(module_, images_.slice(0, begin, std::min(begin + step(), count))));
  }
  return torch::cat(parts);
}

}  // namespace bitplan
