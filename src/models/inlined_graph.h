// The code of a module in one piece.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <memory>

namespace bitplan {

// Visits the nodes of a block in order, those of inner blocks right after the node that holds them.
void ForEachNode(const torch::jit::Block& block, const std::function<void(const torch::jit::Node&)>& visit);

// The same, inner blocks first, for a visitor that changes the graph: it may remove the node that it is given.
template <typename Visit>
void VisitNodes(torch::jit::Block* block, const Visit& visit) {
  for (auto it = block->nodes().begin(); it != block->nodes().end();) {
    torch::jit::Node* node = *it++;
    for (torch::jit::Block* inner : node->blocks()) VisitNodes(inner, visit);
    visit(node);
  }
}

// Whether a node calls code that stands elsewhere.
[[nodiscard]] bool IsCall(const torch::jit::Node& node);

// Puts every call of a graph in its place; a call through an interface stays one.
void InlineCalls(torch::jit::Graph& graph);
// A copy of a graph with every call in its place; a call through an interface stays one.
[[nodiscard]] std::shared_ptr<torch::jit::Graph> InlinedGraph(const torch::jit::Graph& graph);
// Of `forward`, which the module must have.
[[nodiscard]] std::shared_ptr<torch::jit::Graph> InlinedGraph(const torch::jit::Module& module);

}  // namespace bitplan
