#include "quantizers/activation_readers.h"

#include <torch/utils.h>

#include <algorithm>

#include "bitplan/models/layer_inputs.h"

namespace bitplan {
namespace {

constexpr std::int64_t kPositions = 1024;                        // of a layer, over all minibatches
constexpr std::int64_t kEachTime = 128;                          // of a minibatch
constexpr std::int64_t kReaderProducts = std::int64_t{1} << 28;  // multiply-accumulates of one candidate

}  // namespace

void AddReader(const Network& network, std::size_t index, const torch::Tensor& input, at::Generator& generator,
               ActivationSample& sample) {
  const Layer& layer = network.layers[index];
  if (!HasKnownInputs(layer) || input.numel() == 0) return;
  const torch::NoGradGuard no_grad;
  ActivationReader& reader = sample.readers[index];
  const std::int64_t most = std::clamp<std::int64_t>(kReaderProducts / layer.weights(), 64, kPositions);
  const std::int64_t kept = reader.inputs.defined() ? reader.inputs.size(1) : 0;
  if (kept >= most) return;
  const torch::Tensor positions =
      DrawPositions(InputPositions(layer, input), std::min(kEachTime, most - kept), generator);
  const torch::Tensor inputs = GatherInputs(layer, input.detach(), positions);
  reader.inputs = kept == 0 ? inputs : torch::cat({reader.inputs, inputs}, 1);
  if (reader.weights.defined()) return;
  const torch::Tensor weight = GetTensor(network.module, layer.parameter).detach().movedim(layer.output_dim, 0);
  reader.weights = weight.reshape({inputs.size(0), -1, inputs.size(2)}).transpose(1, 2).contiguous();
}

}  // namespace bitplan
