// One layer after another is quantized to all widths, and the network runs on from that layer: what comes before it is
// computed once for every minibatch. Half of the arithmetic of whole passes is left on average, and of L layers the
// L-th part where only the outputs of the layer itself are asked for. Or one tensor that layers read after another is
// rounded to all widths, and the network runs on from where it is made.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <functional>
#include <optional>
#include <vector>

#include "bitplan/models/batch_norm.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "models/resumable_pass.h"
#include "quantizers/rounded_reads.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/units.h"

namespace bitplan {

class OneLayerRuns {
 public:
  // Outputs of every use of every layer, [layers][uses]; undefined where it is that of the float network.
  using Outputs = std::vector<std::vector<torch::Tensor>>;

  // `transfer`: batch norms move along in every pass, as the correction of that name will. `inputs` and `quantized`
  // must outlive it.
  OneLayerRuns(const SensitivityInputs& inputs, const QuantizedLayers& quantized, bool transfer);
  // The same for activations, the weights in float: `layer` below is the first reader of a tensor, `column` one of
  // levels.widths, and what it quantizes is the tensor. `levels` must outlive it.
  OneLayerRuns(const SensitivityInputs& inputs, const ActivationLevels& levels, bool transfer);

  // Normalized images [n, ...] through the network with layer `layer` at width `column`; its logits [n, classes].
  void Logits(const torch::Tensor& images,
              const std::function<void(std::size_t layer, std::size_t column, const torch::Tensor& logits)>& visit);

  enum class Reach { kLayer, kNetwork };
  // The same with the outputs of all layers, or of the quantized one alone, of a tensor those of all layers that read
  // it (then the others' mean nothing).
  void LayerOutputs(const torch::Tensor& images, Reach reach,
                    const std::function<void(std::size_t layer, std::size_t column, const Outputs& outputs)>& visit);

 private:
  // Pieces of the pass in which a layer runs for a minibatch, or in which a tensor is rounded and read; nothing where
  // no image of it reaches the layer.
  struct Span {
    std::size_t first, last;
  };
  struct Result {
    torch::Tensor logits;  // undefined where the pass stops before them
    Outputs outputs;
  };
  using Visit = std::function<void(std::size_t layer, std::size_t column, const Result& result)>;

  void Run(const torch::Tensor& images, Reach reach, bool keep_outputs, const Visit& visit);
  // One pass of the float network, `untouched` by quantization; where batch norms move along it is the reference of
  // their statistics.
  [[nodiscard]] std::vector<std::optional<Span>> FloatPass(const torch::Tensor& images, Result& untouched);
  [[nodiscard]] Result RunFrom(ResumablePass::Point point, std::size_t end, bool keep_outputs);
  // The pieces of layers as those of the tensors that they read, at their first readers.
  [[nodiscard]] std::vector<std::optional<Span>> SpansOfTensors(const std::vector<std::optional<Span>>& layers) const;
  // In which piece every tensor is rounded first; 0 where it is not seen.
  void LocateTensors(const torch::Tensor& images);
  [[nodiscard]] std::size_t Columns(std::size_t layer) const;
  void Quantize(std::size_t layer, std::size_t column);
  void Restore(std::size_t layer);

  const SensitivityInputs& inputs_;
  const QuantizedLayers* quantized_ = nullptr;  // of weights, or
  const ActivationLevels* levels_ = nullptr;    // of activations
  std::optional<RoundedReads> reads_;           // of activations
  torch::jit::Module module_;
  std::optional<BatchNormTransfer> transfer_;
  std::optional<ResumablePass> pass_;
  std::vector<std::size_t> rounded_in_;   // the piece in which a tensor is rounded first
  std::vector<std::size_t> uses_before_;  // of every layer, before the point where passes start now
};

}  // namespace bitplan
