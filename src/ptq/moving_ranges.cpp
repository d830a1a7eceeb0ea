#include "ptq/moving_ranges.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/utils.h>

#include <exception>
#include <map>
#include <optional>
#include <utility>

#include "bitplan/core/error.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "quantizers/inserted_quantizers.h"

namespace bitplan {
namespace {

const c10::Symbol& NumbersKind() {
  static const c10::Symbol kind = c10::Symbol::fromQualString("aten::fake_quantize_per_tensor_affine");
  return kind;
}

// The same arithmetic with a scale that can be written to.
const c10::Symbol& TensorsKind() {
  static const c10::Symbol kind = c10::Symbol::fromQualString("aten::_fake_quantize_learnable_per_tensor_affine");
  return kind;
}

// A clone of the module with a graph of its own.
torch::jit::Module OwnGraph(const torch::jit::Module& module) {
  torch::jit::Module own = module.clone();
  CopyTensors(module, own);  // a clone unties what submodules share
  return own;
}

// Puts another quantizer in the place of each that layers read behind, as `make` says it: a node for the first layer
// that reads it.
template <typename Rounds, typename Make>
void Replace(const Network& network, torch::jit::Module& module, const c10::Symbol& kind, const Rounds& rounds,
             const Make& make) {
  torch::jit::Graph& graph = *module.get_method("forward").graph();
  const auto values = ValuesOf(FindLayerReads(graph, module, network));
  const auto first = FirstReaders(values, network.layers.size());
  for (const auto& [value, readers] : values) {
    torch::jit::Node* const node = value->node();
    if (node->kind() != kind || !rounds(first[readers.front()])) continue;  // one that the model has itself
    const torch::jit::WithInsertPoint here(node);
    torch::jit::Value* const other = make(graph, node, first[readers.front()]);
    other->copyMetadata(value);
    value->replaceAllUsesWith(other);
    node->destroy();
  }
}

}  // namespace

MovingRanges::MovingRanges(const Network& network, AppliedPlan& applied) : network_(network), applied_(applied) {
  if (applied.activations.empty()) return;
  torch::jit::Module module = OwnGraph(applied.module);
  std::map<std::size_t, std::size_t> places;  // first reader -> range
  const auto rounds = [&](std::size_t layer) { return applied.activations[layer].rounds(); };
  Replace(network, module, NumbersKind(), rounds,
          [&](torch::jit::Graph& graph, torch::jit::Node* node, std::size_t layer) {
            const AffineQuantizer& quantizer = applied.activations[layer];
            const auto [place, fresh] = places.try_emplace(layer, ranges_.size());
            if (fresh) ranges_.push_back({layer, torch::full({1}, quantizer.scale), quantizer});
            // The graph holds the very tensor, so what is written there is what the next pass rounds with.
            return graph.insert(TensorsKind(), {node->input(0), graph.insertConstant(ranges_[place->second].scale),
                                                torch::full({1}, static_cast<float>(quantizer.zero_point)),
                                                std::int64_t{0}, quantizer.highest()});
          });
  applied.module = module;
}

MovingRanges::~MovingRanges() {
  if (settled_) return;
  try {
    PutBack();
  } catch (const std::exception&) {
    // Another error is on its way, and the network is given up with it.
  }
}

void MovingRanges::PutBack() {
  for (MovingRange& range : ranges_) {
    const torch::NoGradGuard no_grad;
    range.scale.fill_(range.quantizer.scale);
  }
  Settle();
}

void MovingRanges::Settle() {
  settled_ = true;
  if (ranges_.empty()) return;
  std::map<std::size_t, const MovingRange*> by_layer;
  for (const MovingRange& range : ranges_) by_layer[range.layer] = &range;
  torch::jit::Module module = OwnGraph(applied_.module);
  const auto first = SharedInputs(network_);
  for (std::size_t l = 0; l < first.size(); ++l) {
    const auto range = by_layer.find(first[l]);
    if (range != by_layer.end()) applied_.activations[l].scale = range->second->scale.item<float>();
  }
  const auto rounds = [&](std::size_t layer) { return applied_.activations[layer].rounds(); };
  Replace(network_, module, TensorsKind(), rounds, [&](torch::jit::Graph&, torch::jit::Node* node, std::size_t layer) {
    return InsertQuantizer(node, node->input(0), applied_.activations[layer]);
  });
  applied_.module = module;
}

}  // namespace bitplan
