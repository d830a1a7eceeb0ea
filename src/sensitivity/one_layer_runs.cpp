#include "sensitivity/one_layer_runs.h"

#include <torch/utils.h>

#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"

namespace bitplan {

OneLayerRuns::OneLayerRuns(const SensitivityInputs& inputs, const QuantizedLayers& quantized, bool transfer)
    : inputs_(inputs), quantized_(quantized), module_(CloneModule(inputs.network.module)) {
  if (transfer) transfer_.emplace(inputs.network, module_);
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
  if (!pass_) pass_.emplace(inputs_.network, module_, images);
  Result untouched;  // by a layer that no image reaches
  const std::vector<std::optional<Span>> spans = FloatPass(images, untouched);
  uses_before_.assign(layers.size(), 0);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    for (std::size_t k = 0; !spans[l] && k < inputs_.widths.size(); ++k) visit(l, k, untouched);
  }
  for (ResumablePass::Point point = pass_->Begin(images); !pass_->AtEnd(point);) {
    for (std::size_t l = 0; l < layers.size(); ++l) {
      if (!spans[l] || spans[l]->first != point.piece) continue;
      const torch::Tensor slot = GetTensor(module_, layers[l].parameter);
      const torch::Tensor original = slot.clone();
      const std::size_t end = reach == Reach::kLayer ? spans[l]->last + 1 : pass_->pieces();
      for (std::size_t k = 0; k < inputs_.widths.size(); ++k) {
        ThrowIfInterrupted();
        slot.copy_(quantized_.Values(l, k));
        visit(l, k, RunFrom(point, end, keep_outputs));
      }
      slot.copy_(original);
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
