// One layer after another is quantized to all widths, and the network runs on from that layer: what comes before it is
// computed once for every minibatch. Half of the arithmetic of whole passes is left on average, and of L layers the
// L-th part where only the outputs of the layer itself are asked for.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <functional>
#include <optional>
#include <vector>

#include "bitplan/models/batch_norm.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "models/resumable_pass.h"
#include "sensitivity/units.h"

namespace bitplan {

class OneLayerRuns {
 public:
  // Outputs of every use of every layer, [layers][uses]; undefined where it is that of the float network.
  using Outputs = std::vector<std::vector<torch::Tensor>>;

  // `transfer`: batch norms move along in every pass, as the correction of that name will. `inputs` and `quantized`
  // must outlive it.
  OneLayerRuns(const SensitivityInputs& inputs, const QuantizedLayers& quantized, bool transfer);

  // Normalized images [n, ...] through the network with layer `layer` at width `column`; its logits [n, classes].
  void Logits(const torch::Tensor& images,
              const std::function<void(std::size_t layer, std::size_t column, const torch::Tensor& logits)>& visit);

  enum class Reach { kLayer, kNetwork };
  // The same with the outputs of all layers, or of the quantized one alone (then the others' mean nothing).
  void LayerOutputs(const torch::Tensor& images, Reach reach,
                    const std::function<void(std::size_t layer, std::size_t column, const Outputs& outputs)>& visit);

 private:
  // Pieces of the pass in which a layer runs for a minibatch; nothing where no image of it reaches the layer.
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

  const SensitivityInputs& inputs_;
  const QuantizedLayers& quantized_;
  torch::jit::Module module_;
  std::optional<BatchNormTransfer> transfer_;
  std::optional<ResumablePass> pass_;
  std::vector<std::size_t> uses_before_;  // of every layer, before the point where passes start now
};

}  // namespace bitplan
