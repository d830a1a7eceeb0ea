#include "sensitivity/one_layer_runs.h"

#include <torch/utils.h>

#include <algorithm>
#include <string>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"

namespace bitplan {

OneLayerRuns::OneLayerRuns(const SensitivityInputs& inputs, const QuantizedLayers& quantized, bool transfer)
    : inputs_(inputs), quantized_(&quantized), module_(CloneModule(inputs.network.module)) {
  if (transfer) transfer_.emplace(inputs.network, module_);
}

OneLayerRuns::OneLayerRuns(const SensitivityInputs& inputs, const ActivationLevels& levels, bool transfer)
    : inputs_(inputs), levels_(&levels), reads_(inputs.network), module_(reads_->module()) {
  if (transfer) transfer_.emplace(inputs.network, module_);
}

std::size_t OneLayerRuns::Columns(std::size_t layer) const {
  if (levels_ == nullptr) return inputs_.widths.size();
  return levels_->quantizers[layer].size();  // none but at first readers
}

void OneLayerRuns::Quantize(std::size_t layer, std::size_t column) {
  if (levels_ != nullptr) {
    reads_->Set(layer, levels_->quantizers[layer][column]);
    return;
  }
  GetTensor(module_, inputs_.network.layers[layer].parameter).copy_(quantized_->Values(layer, column));
}

void OneLayerRuns::Restore(std::size_t layer) {
  if (levels_ != nullptr) {
    reads_->Set(layer, {});
    return;
  }
  const std::string& parameter = inputs_.network.layers[layer].parameter;
  GetTensor(module_, parameter).copy_(GetTensor(inputs_.network.module, parameter));
}

void OneLayerRuns::LocateTensors(const torch::Tensor& images) {
  const std::size_t never = pass_->pieces();
  rounded_in_.assign(inputs_.network.layers.size(), never);
  ResumablePass::Point point = pass_->Begin(images);
  reads_->Locate(
      [&] {
        while (!pass_->AtEnd(point)) pass_->Step(point);
      },
      [&](std::size_t tensor) { rounded_in_[tensor] = std::min(rounded_in_[tensor], point.piece); });
  std::replace(rounded_in_.begin(), rounded_in_.end(), never, std::size_t{0});
}

std::vector<std::optional<OneLayerRuns::Span>> OneLayerRuns::SpansOfTensors(
    const std::vector<std::optional<Span>>& layers) const {
  std::vector<std::optional<Span>> spans(layers.size());
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::size_t tensor = levels_->tensors[l];
    if (!layers[l] || !levels_->rounds(tensor)) continue;
    const std::size_t last = spans[tensor] ? std::max(spans[tensor]->last, layers[l]->last) : layers[l]->last;
    spans[tensor] = Span{rounded_in_[tensor], last};
  }
  return spans;
}

void OneLayerRuns::Logits(const torch::Tensor& images,
                          const std::function<void(std::size_t, std::size_t, const torch::Tensor&)>& visit) {
  Run(images, Reach::kNetwork, /*keep_outputs=*/false,
      [&](std::size_t layer, std::size_t column, const Result& result) { visit(layer, column, result.logits); });
}

void OneLayerRuns::LayerOutputs(const torch::Tensor& images, Reach reach,
                                const std::function<void(std::size_t, std::size_t, const Outputs&)>& visit) {
  Run(images, reach, /*keep_outputs=*/true,
      [&](std::size_t layer, std::size_t column, const Result& result) { visit(layer, column, result.outputs); });
}

std::vector<std::optional<OneLayerRuns::Span>> OneLayerRuns::FloatPass(const torch::Tensor& images, Result& untouched) {
  std::vector<std::optional<Span>> spans(inputs_.network.layers.size());
  ResumablePass::Point point = pass_->Begin(images);
  untouched.outputs.resize(spans.size());
  const auto note = [&](std::size_t layer, const torch::Tensor&) {
    untouched.outputs[layer].emplace_back();
    spans[layer] = Span{spans[layer] ? spans[layer]->first : point.piece, point.piece};
  };
  TapHandlers handlers;
  handlers.on_layer_output = note;  // a recurrent layer has several
  if (transfer_) {
    transfer_->Restore();
    handlers.on_batch_norm_input = transfer_->FloatHandler();
  }
  const Tap tap(inputs_.network, module_, std::move(handlers));
  while (!pass_->AtEnd(point)) pass_->Step(point);
  untouched.logits = pass_->Finish(std::move(point));
  return spans;
}

OneLayerRuns::Result OneLayerRuns::RunFrom(ResumablePass::Point point, std::size_t end, bool keep_outputs) {
  Result result;
  TapHandlers handlers;
  if (keep_outputs) {
    for (const std::size_t before : uses_before_) result.outputs.emplace_back(before);
    handlers.on_layer_output = [&](std::size_t layer, const torch::Tensor& output) {
      result.outputs[layer].push_back(output);
    };
  }
  if (transfer_) handlers.on_batch_norm_input = transfer_->Handler();
  const Tap tap(inputs_.network, module_, std::move(handlers));
  if (end == pass_->pieces()) {
    result.logits = pass_->Finish(std::move(point));
  } else {
    while (point.piece < end) pass_->Step(point);
  }
  return result;
}

void OneLayerRuns::Run(const torch::Tensor& images, Reach reach, bool keep_outputs, const Visit& visit) {
  const torch::NoGradGuard no_grad;
  const auto& layers = inputs_.network.layers;
  if (!pass_) {
    pass_.emplace(inputs_.network, module_, images);
    if (reads_) LocateTensors(images);
  }
  Result untouched;  // by a layer that no image reaches
  std::vector<std::optional<Span>> spans = FloatPass(images, untouched);
  if (reads_) spans = SpansOfTensors(spans);
  uses_before_.assign(layers.size(), 0);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    for (std::size_t k = 0; !spans[l] && k < Columns(l); ++k) visit(l, k, untouched);
  }
  for (ResumablePass::Point point = pass_->Begin(images); !pass_->AtEnd(point);) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      if (!spans[l] || spans[l]->first != point.piece) continue;
      const std::size_t end = reach == Reach::kLayer ? spans[l]->last + 1 : pass_->pieces();
      for (std::size_t k = 0; k < Columns(l); ++k) {
        ThrowIfInterrupted();
        Quantize(l, k);
        visit(l, k, RunFrom(point, end, keep_outputs));
      }
      Restore(l);
    }
    if (transfer_) transfer_->Restore();
    const Tap tap(inputs_.network, module_,
                  {.on_layer_input = nullptr,
                   .on_layer_output = [&](std::size_t layer, const torch::Tensor&) { ++uses_before_[layer]; },
                   .on_batch_norm_input = nullptr});
    pass_->Step(point);
  }
}

}  // namespace bitplan
