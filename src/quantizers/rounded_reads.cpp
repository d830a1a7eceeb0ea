#include "quantizers/rounded_reads.h"

#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

#include "bitplan/core/error.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "models/operation_matcher.h"

namespace bitplan {
namespace {

constexpr const char* kFakeQuantize = "aten::fake_quantize_per_tensor_affine";

// Attributes of a tensor's branch.
std::string AttributeOf(const char* what, std::size_t tensor) {
  return std::string("bitplan_") + what + "_" + std::to_string(tensor);
}

void AddAttributes(torch::jit::Module& module, std::size_t tensor) {
  module.register_attribute(AttributeOf("rounds", tensor), c10::BoolType::get(), false);
  module.register_attribute(AttributeOf("scale", tensor), c10::FloatType::get(), 1.0);
  module.register_attribute(AttributeOf("zero", tensor), c10::IntType::get(), std::int64_t{0});
  module.register_attribute(AttributeOf("highest", tensor), c10::IntType::get(), std::int64_t{1});
}

void InsertBranch(torch::jit::Value* value, std::size_t tensor) {
  torch::jit::Graph& graph = *value->owningGraph();
  torch::jit::Value* const self = graph.inputs()[0];
  const torch::jit::WithInsertPoint here(NodeBehind(value));
  torch::jit::Value* const rounds = graph.insertGetAttr(self, AttributeOf("rounds", tensor));
  torch::jit::Node* const branch = graph.insertNode(graph.create(c10::prim::If, {rounds}, 1));
  torch::jit::Block* const rounded = branch->addBlock();
  torch::jit::Block* const as_it_is = branch->addBlock();
  {
    const torch::jit::WithInsertPoint inside(rounded);
    rounded->registerOutput(graph.insert(c10::Symbol::fromQualString(kFakeQuantize),
                                         {value, graph.insertGetAttr(self, AttributeOf("scale", tensor)),
                                          graph.insertGetAttr(self, AttributeOf("zero", tensor)), std::int64_t{0},
                                          graph.insertGetAttr(self, AttributeOf("highest", tensor))}));
  }
  as_it_is->registerOutput(value);
  branch->output()->copyMetadata(value);
  value->replaceAllUsesAfterNodeWith(branch, branch->output());
}

}  // namespace

RoundedReads::RoundedReads(const Network& network)
    : module_(network.module.clone()), rounds_(network.layers.size(), false) {
  CopyTensors(network.module, module_);  // a clone unties what submodules share
  torch::jit::Graph& graph = *module_.get_method("forward").graph();
  InlineCalls(graph);
  const ReadValues values = ValuesOf(FindLayerReads(graph, module_, network));
  tensors_ = FirstReaders(values, network.layers.size());
  for (const auto& [value, readers] : values) {
    const std::size_t tensor = tensors_[readers.front()];
    if (!rounds_[tensor]) AddAttributes(module_, tensor);
    rounds_[tensor] = true;
  }
  for (const auto& [value, readers] : values) InsertBranch(value, tensors_[readers.front()]);
}

void RoundedReads::Set(std::size_t tensor, const AffineQuantizer& quantizer) {
  if (!rounds_[tensor] && !quantizer.rounds()) return;
  module_.setattr(AttributeOf("rounds", tensor), quantizer.rounds());
  if (!quantizer.rounds()) return;
  module_.setattr(AttributeOf("scale", tensor), static_cast<double>(quantizer.scale));
  module_.setattr(AttributeOf("zero", tensor), quantizer.zero_point);
  module_.setattr(AttributeOf("highest", tensor), quantizer.highest());
}

void RoundedReads::Locate(const std::function<void()>& pass, const std::function<void(std::size_t tensor)>& visit) {
  for (std::size_t t = 0; t < rounds_.size(); ++t) {
    if (rounds_[t]) Set(t, {.bits = 2, .scale = static_cast<float>(t + 1)});  // by its scale it is told
  }
  {
    OperationObserver observer(
        [&](std::string_view operation, Operands operands) {
          // A quantizer that the model has itself has another scale, or takes it from a tensor.
          if (operation != kFakeQuantize || !operands[1].isDouble()) return false;
          const double told = operands[1].toDouble() - 1.0;
          const bool known = told >= 0.0 && told < static_cast<double>(rounds_.size()) && told == std::floor(told);
          if (known && rounds_[static_cast<std::size_t>(told)]) visit(static_cast<std::size_t>(told));
          return false;
        },
        [](Operands) {});
    pass();
    observer.Rethrow();
  }
  for (std::size_t t = 0; t < rounds_.size(); ++t) {
    if (rounds_[t]) Set(t, {});
  }
}

}  // namespace bitplan
