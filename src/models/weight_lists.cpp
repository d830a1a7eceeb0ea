#include "models/weight_lists.h"

#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/inlined_graph.h"

namespace bitplan {
namespace {

using Key = std::pair<const c10::ClassType*, std::string>;  // a class and an attribute of it: a list of tensors
using Names = std::vector<std::string>;                     // the attributes that hold its tensors

bool SameTensor(const torch::Tensor& a, const torch::Tensor& b) {
  return a.is_same(b) || (a.defined() && b.defined() && a.has_storage() && b.has_storage() && a.numel() > 0 &&
                          a.data_ptr() == b.data_ptr() && a.sizes() == b.sizes() && a.strides() == b.strides());
}

// The attributes of a module that hold the tensors of a list; empty where one of them is no attribute.
Names AttributesOf(const torch::jit::Module& module, const std::vector<torch::Tensor>& tensors) {
  Names names;
  for (const torch::Tensor& tensor : tensors) {
    for (const auto& attribute : module.named_attributes(/*recurse=*/false)) {
      if (!attribute.value.isTensor() || !SameTensor(attribute.value.toTensor(), tensor)) continue;
      names.push_back(attribute.name);
      break;
    }
  }
  return names.size() == tensors.size() ? names : Names();
}

bool OnlyReads(const torch::jit::Node& node) {
  static const std::set<std::string> kinds = {"aten::lstm",        "aten::gru", "aten::rnn_tanh",  "aten::rnn_relu",
                                              "aten::__getitem__", "aten::len", "prim::ListUnpack"};
  return kinds.contains(node.kind().toQualString());
}

// The graphs of all methods, each once. A list that they hand to a function keeps its place.
std::set<std::shared_ptr<torch::jit::Graph>> GraphsOf(const torch::jit::Module& module) {
  std::set<std::shared_ptr<torch::jit::Graph>> graphs;
  for (const torch::jit::Module& part : module.modules()) {
    for (const torch::jit::Method& method : part.get_methods()) graphs.insert(method.graph());
  }
  return graphs;
}

std::optional<Key> KeyOfNode(const torch::jit::Node& node) {
  if (node.kind() != c10::prim::GetAttr && node.kind() != c10::prim::SetAttr) return std::nullopt;
  const auto type = node.input(0)->type()->cast<c10::ClassType>();
  if (!type) return std::nullopt;
  return Key(type.get(), node.s(c10::attr::name));
}

}  // namespace

void ReadListsFromAttributes(const torch::jit::Module& module) {
  std::map<Key, Names> lists;
  for (const torch::jit::Module& part : module.modules()) {
    for (const auto& attribute : part.named_attributes(/*recurse=*/false)) {
      if (!attribute.value.isTensorList() || attribute.value.toTensorVector().empty()) continue;
      const Names names = AttributesOf(part, attribute.value.toTensorVector());
      const auto [entry, fresh] = lists.try_emplace(Key(part.type().get(), attribute.name), names);
      if (entry->second != names) entry->second.clear();  // modules of one class that differ
    }
  }
  std::erase_if(lists, [](const auto& entry) { return entry.second.empty(); });
  if (lists.empty()) return;
  const auto graphs = GraphsOf(module);
  for (const auto& graph : graphs) {
    VisitNodes(graph->block(), [&](const torch::jit::Node* node) {
      const auto key = KeyOfNode(*node);
      if (!key || !lists.contains(*key)) return;
      const auto& uses = node->kind() == c10::prim::GetAttr ? node->output()->uses() : torch::jit::use_list();
      const bool reads = node->kind() == c10::prim::GetAttr &&
                         std::all_of(uses.begin(), uses.end(), [](const auto& use) { return OnlyReads(*use.user); });
      if (!reads) lists.erase(*key);
    });
  }
  for (const auto& graph : graphs) {
    VisitNodes(graph->block(), [&](torch::jit::Node* node) {
      const auto key = KeyOfNode(*node);
      const auto found = key ? lists.find(*key) : lists.end();
      if (found == lists.end()) return;
      const torch::jit::WithInsertPoint here(node);
      std::vector<torch::jit::Value*> tensors;
      for (const std::string& name : found->second) tensors.push_back(graph->insertGetAttr(node->input(0), name));
      torch::jit::Node* const list = graph->insertNode(graph->createList(c10::TensorType::get(), tensors));
      node->output()->replaceAllUsesWith(list->output());
      node->destroy();
    });
  }
  for (const torch::jit::Module& part : module.modules()) {
    for (const auto& attribute : part.named_attributes(/*recurse=*/false)) {
      if (!lists.contains(Key(part.type().get(), attribute.name))) continue;
      part._ivalue()->setAttr(attribute.name, c10::List<torch::Tensor>());
    }
  }
}

}  // namespace bitplan
