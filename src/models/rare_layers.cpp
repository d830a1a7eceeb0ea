#include "models/rare_layers.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "models/recorded_pass.h"

namespace bitplan {
namespace {

// Takes over what a pass of `count` other inputs shows of parameters that were unused so far.
void MergePass(Network& network, const Network& other, std::int64_t count) {
  std::size_t place = 0;  // behind the layer that came before in this pass
  for (const Layer& layer : other.layers) {
    const auto known = std::find_if(network.layers.begin(), network.layers.end(),
                                    [&](const Layer& l) { return l.parameter == layer.parameter; });
    if (known != network.layers.end()) {
      known->uses = std::max(known->uses, layer.uses);
      known->meets_whole_input = known->meets_whole_input && layer.meets_whole_input;
      place = static_cast<std::size_t>(known - network.layers.begin()) + 1;
      continue;
    }
    const auto left = std::find_if(network.left_in_float.begin(), network.left_in_float.end(),
                                   [&](const FloatParameter& p) { return p.parameter == layer.parameter; });
    if (left == network.left_in_float.end() || left->reason != kNotUsed) continue;
    network.left_in_float.erase(left);
    const auto added = network.layers.insert(network.layers.begin() + static_cast<std::ptrdiff_t>(place++), layer);
    added->macs /= count;
    added->output_values /= count;
    network.has_rare_layers = true;
  }
  for (const FloatParameter& parameter : other.left_in_float) {
    for (FloatParameter& left : network.left_in_float) {
      if (left.parameter != parameter.parameter || left.reason != kNotUsed) continue;
      left.reason = parameter.reason;
      left.weight = parameter.weight;
    }
  }
}

}  // namespace

bool HasUnusedWeights(const Network& network) {
  return std::any_of(network.left_in_float.begin(), network.left_in_float.end(),
                     [](const FloatParameter& parameter) { return parameter.weight && parameter.reason == kNotUsed; });
}

void AddRareLayers(Network& network, std::set<std::string>& written, const torch::jit::Graph& graph,
                   const torch::Tensor& images) {
  constexpr std::int64_t kBatch = 32, kMost = 2048;
  const torch::NoGradGuard no_grad;
  const std::int64_t count = std::min(kMost, images.size(0));
  for (std::int64_t begin = 0; begin < count && HasUnusedWeights(network); begin += kBatch) {
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + kBatch, count));
    MergePass(network, RecordPass(network.module, graph, written, [&] { (void)RunForward(network.module, batch); }),
              batch.size(0));
  }
}

}  // namespace bitplan
