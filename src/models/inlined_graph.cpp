#include "models/inlined_graph.h"

#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

namespace bitplan {

void ForEachNode(const torch::jit::Block& block, const std::function<void(const torch::jit::Node&)>& visit) {
  for (const torch::jit::Node* node : block.nodes()) {
    visit(*node);
    for (const torch::jit::Block* inner : node->blocks()) ForEachNode(*inner, visit);
  }
}

bool IsCall(const torch::jit::Node& node) {
  return node.kind() == c10::prim::CallMethod || node.kind() == c10::prim::CallFunction;
}

void InlineCalls(torch::jit::Graph& graph) {
  // The optimizer stays off, or called methods would keep optimized graphs; without it Inline goes down one level of
  // calls at a time.
  constexpr int kDeepest = 64;
  const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
  bool calls = true;
  for (int depth = 0; calls && depth < kDeepest; ++depth) {
    torch::jit::Inline(graph);
    calls = false;
    ForEachNode(*graph.block(), [&](const torch::jit::Node& node) { calls = calls || IsCall(node); });
  }
}

std::shared_ptr<torch::jit::Graph> InlinedGraph(const torch::jit::Graph& graph) {
  auto inlined = const_cast<torch::jit::Graph&>(graph).copy();
  InlineCalls(*inlined);
  return inlined;
}

std::shared_ptr<torch::jit::Graph> InlinedGraph(const torch::jit::Module& module) {
  return InlinedGraph(*module.get_method("forward").graph());
}

}  // namespace bitplan
