// The identity of a model: what it holds and what it does.
//
// Tensors are hashed by name, shape and bytes. Code is hashed as the inlined graph of `forward` (and of forward hooks):
// every operation in order, with where its operands come from. Names of values, line numbers and the names that
// TorchScript invents for classes do not count, so a module and the same module saved and loaded have one hash.
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <algorithm>
#include <regex>
#include <sstream>
#include <unordered_map>

#include "bitplan/io/files.h"
#include "bitplan/models/network.h"
#include "models/inlined_graph.h"

namespace bitplan {
namespace {

using torch::jit::AttributeKind;

void HashTensor(Sha256& hash, const torch::Tensor& tensor) {
  if (!tensor.defined()) {
    hash.Update("undefined");
    return;
  }
  std::ostringstream header;
  header << torch::toString(tensor.scalar_type()) << ' ' << tensor.sizes();
  hash.Update(header.str());
  torch::Tensor plain = tensor.detach();
  if (plain.is_quantized()) {
    std::ostringstream grid;
    grid << torch::toString(plain.qscheme());
    hash.Update(grid.str());
    plain = plain.dequantize();
  }
  if (plain.layout() != torch::kStrided) plain = plain.to_dense();
  const torch::Tensor bytes = plain.to(torch::kCPU).contiguous();
  hash.Update(bytes.data_ptr(), bytes.nbytes());
}

// "__torch__.torch.nn.modules.conv.___torch_mangle_7.Conv2d" -> "__torch__.torch.nn.modules.conv.Conv2d".
std::string Unmangled(const std::string& type) {
  static const std::regex mangle("___torch_mangle_[0-9]+\\.");
  return std::regex_replace(type, mangle, "");
}

// Any value that is no tensor and no module: numbers, words, lists, dictionaries, objects of the user's classes.
void HashValue(Sha256& hash, const c10::IValue& value) {
  if (value.isTensor()) {
    HashTensor(hash, value.toTensor());
  } else if (value.isObject()) {
    const auto object = value.toObject();
    hash.Update(Unmangled(object->type()->str()));
    for (std::size_t slot = 0; slot < object->type()->numAttributes(); ++slot) {
      hash.Update(object->type()->getAttributeName(slot));
      HashValue(hash, object->getSlot(slot));
    }
  } else if (value.isList()) {
    hash.Update("list " + std::to_string(value.toListRef().size()));
    for (const c10::IValue& entry : value.toListRef()) HashValue(hash, entry);
  } else if (value.isTuple()) {
    hash.Update("tuple " + std::to_string(value.toTupleRef().elements().size()));
    for (const c10::IValue& entry : value.toTupleRef().elements()) HashValue(hash, entry);
  } else if (value.isGenericDict()) {
    hash.Update("dictionary");
    for (const auto& entry : value.toGenericDict()) {
      HashValue(hash, entry.key());
      HashValue(hash, entry.value());
    }
  } else if (value.isDouble()) {
    const double number = value.toDouble();
    hash.Update("float").Update(&number, sizeof number);
  } else {
    std::ostringstream text;
    if (value.isString()) {
      text << value.toStringRef();
    } else if (value.isNone() || value.isInt() || value.isBool() || value.isDevice()) {
      text << value;
    }
    hash.Update(value.tagKind()).Update(text.str());
  }
}

std::string HashOfValue(const c10::IValue& value) {
  Sha256 hash;
  HashValue(hash, value);
  return hash.Hex();
}

class GraphHash {
 public:
  std::string Hash(const torch::jit::Graph& graph) {
    AddBlock(*graph.block(), graph.inputs());
    return hash_.Hex();
  }

 private:
  using Inputs = c10::ArrayRef<const torch::jit::Value*>;

  // What has no effect and no identity of its own is named by what it is: constants, attributes, and a list or tuple
  // that one operation takes. Everything else is named by its place among the operations.
  static bool NamedByContent(const torch::jit::Node& node) {
    if (node.kind() == c10::prim::Constant || node.kind() == c10::prim::GetAttr) return true;
    const bool made = node.kind() == c10::prim::ListConstruct || node.kind() == c10::prim::TupleConstruct;
    return made && node.output()->uses().size() == 1;
  }

  std::string Attributes(const torch::jit::Node& node) const {
    std::string text;
    auto names = node.attributeNames();
    std::sort(names.begin(), names.end(),
              [](auto a, auto b) { return std::string(a.toUnqualString()) < b.toUnqualString(); });
    for (const auto name : names) {
      text += std::string(name.toUnqualString()) + "=";
      switch (node.kindOf(name)) {
        case AttributeKind::f:
          text += HashOfValue(node.f(name));
          break;
        case AttributeKind::i:
          text += std::to_string(node.i(name));
          break;
        case AttributeKind::s:
          text += HashOfValue(node.s(name));
          break;
        case AttributeKind::t:
          text += HashOfValue(node.t(name));
          break;
        case AttributeKind::ival:
          text += HashOfValue(node.ival(name));
          break;
        case AttributeKind::fs:
          text += HashOfValue(node.fs(name));
          break;
        case AttributeKind::is:
          text += HashOfValue(node.is(name));
          break;
        case AttributeKind::ss:
          for (const std::string& word : node.ss(name)) text += HashOfValue(word);
          break;
        case AttributeKind::ts:
          for (const torch::Tensor& tensor : node.ts(name)) text += HashOfValue(tensor);
          break;
        case AttributeKind::ty:
          text += Unmangled(node.ty(name)->str());
          break;
        case AttributeKind::tys:
          for (const auto& type : node.tys(name)) text += Unmangled(type->str());
          break;
        case AttributeKind::g:
          text += GraphHash().Hash(*node.g(name));
          break;
        case AttributeKind::gs:
          for (const auto& graph : node.gs(name)) text += GraphHash().Hash(*graph);
          break;
        default:
          text += "other";
          break;
      }
      text += ";";
    }
    return text;
  }

  const std::string& Name(const torch::jit::Value* value) {
    const auto known = names_.find(value);
    if (known != names_.end()) return known->second;
    std::string name = "unknown";
    if (NamedByContent(*value->node())) {
      Sha256 content;
      content.Update(value->node()->kind().toQualString()).Update(Attributes(*value->node()));
      for (const torch::jit::Value* input : value->node()->inputs()) content.Update(Name(input));
      name = content.Hex();
    }
    return names_.emplace(value, name).first->second;
  }

  void AddBlock(const torch::jit::Block& block, Inputs inputs) {
    for (const torch::jit::Value* input : inputs) names_[input] = "input " + std::to_string(places_++);
    for (const torch::jit::Node* node : block.nodes()) {
      if (NamedByContent(*node)) continue;
      hash_.Update(node->kind().toQualString()).Update(Attributes(*node));
      for (const torch::jit::Value* input : node->inputs()) hash_.Update(Name(input));
      for (const torch::jit::Block* inner : node->blocks()) AddBlock(*inner, inner->inputs());
      for (const torch::jit::Value* output : node->outputs()) {
        names_[output] = "value " + std::to_string(places_++);
        // What a conversion or an empty list is of is in its type alone.
        if (!output->type()->isSubtypeOf(*c10::TensorType::get())) hash_.Update(Unmangled(output->type()->str()));
      }
    }
    hash_.Update("return");
    for (const torch::jit::Value* output : block.outputs()) hash_.Update(Name(output));
  }

  Sha256 hash_;
  std::unordered_map<const torch::jit::Value*, std::string> names_;
  std::int64_t places_ = 0;
};

// `open`: set when a call stays that only a running network can follow (through an interface).
std::string CodeOf(const torch::jit::Function& function, bool& open) {
  if (!function.isGraphFunction()) return function.name();
  const auto graph = InlinedGraph(*torch::jit::toGraphFunction(const_cast<torch::jit::Function&>(function)).graph());
  ForEachNode(*graph->block(), [&](const torch::jit::Node& node) { open = open || IsCall(node); });
  return GraphHash().Hash(*graph);
}

// Attributes that are neither tensors nor modules: numbers, words, lists and the state of packed weights.
void HashAttributes(Sha256& hash, const torch::jit::Module& module, const std::string& path) {
  const auto type = module.type();
  std::vector<std::pair<std::string, std::size_t>> slots;
  for (std::size_t slot = 0; slot < type->numAttributes(); ++slot)
    slots.emplace_back(type->getAttributeName(slot), slot);
  std::sort(slots.begin(), slots.end());
  for (const auto& [name, slot] : slots) {
    const c10::IValue value = module._ivalue()->getSlot(slot);
    if (value.isTensor() || value.isModule() || name == "training") continue;
    hash.Update(path + name);
    HashValue(hash, value);
  }
  for (const auto& child : module.named_children()) HashAttributes(hash, child.value, path + child.name + ".");
}

}  // namespace

std::string ModelHash(const torch::jit::Module& module) {
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& entry : module.named_parameters()) tensors.emplace_back(entry.name, entry.value);
  for (const auto& entry : module.named_attributes()) {  // registered as a buffer or not
    const bool tensor = entry.value.isTensor() && entry.value.toTensor().defined();
    if (tensor) tensors.emplace_back(entry.name, entry.value.toTensor());
  }
  const auto by_name = [](const auto& a, const auto& b) { return a.first < b.first; };
  const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
  std::stable_sort(tensors.begin(), tensors.end(), by_name);
  tensors.erase(std::unique(tensors.begin(), tensors.end(), same), tensors.end());
  Sha256 hash;
  for (const auto& [name, tensor] : tensors) {
    hash.Update(name);
    HashTensor(hash, tensor);
  }
  HashAttributes(hash, module, "");
  bool open = false;
  if (const auto forward = module.find_method("forward")) hash.Update(CodeOf(forward->function(), open));
  for (const torch::jit::Module& part : module.modules()) {
    for (const torch::jit::Function* hook : part.type()->getForwardPreHooks()) hash.Update(CodeOf(*hook, open));
    for (const torch::jit::Function* hook : part.type()->getForwardHooks()) hash.Update(CodeOf(*hook, open));
  }
  if (!open) return hash.Hex();
  for (const torch::jit::Module& part : module.modules()) {  // who is called is not known: everything counts
    for (const torch::jit::Function* method : part.type()->methods()) hash.Update(CodeOf(*method, open));
  }
  return hash.Hex();
}

}  // namespace bitplan
