#include "exporters/graph_walk.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "bitplan/core/error.h"
#include "models/torch_reason.h"

namespace bitplan {
namespace {

namespace prim = c10::prim;

std::string PlaceOf(const torch::jit::Node& node, const std::string& scope) {
  std::string place = node.kind().toQualString();
  if (!scope.empty()) place += fmt::format(" in '{}'", scope);
  if (const auto line = node.sourceRange().file_line_col()) {
    place += fmt::format(" ({}:{})", std::filesystem::path(std::get<0>(*line)).filename().string(), std::get<1>(*line));
  }
  return place;
}

[[noreturn]] void RefuseWay(const torch::jit::Node& node, const std::string& scope, const std::string& what) {
  throw Error(ErrorKind::kData,
              fmt::format("onnx: {} at {}: write it so that every batch takes the same way, or export "
                          "--to packed or torchscript",
                          what, PlaceOf(node, scope)));
}

c10::IValue ListOf(const c10::Type& type, const std::vector<c10::IValue>& elements) {
  c10::impl::GenericList list(type.expectRef<c10::ListType>().getElementType());
  for (const c10::IValue& element : elements) list.push_back(element);
  return list;
}

// key, value, key, value, ...
c10::IValue DictionaryOf(const c10::Type& type, const std::vector<c10::IValue>& entries) {
  const auto& dictionary = type.expectRef<c10::DictType>();
  c10::impl::GenericDict made(dictionary.getKeyType(), dictionary.getValueType());
  for (std::size_t i = 0; i + 1 < entries.size(); i += 2) made.insert_or_assign(entries[i], entries[i + 1]);
  return made;
}

bool IsFunction(const torch::jit::Value& value) { return value.type()->kind() == c10::TypeKind::FunctionType; }

}  // namespace

std::string WalkedOperation::Place() const { return PlaceOf(node, scope); }

GraphWalk::GraphWalk(const torch::jit::Module& module, Visit visit) : module_(module), visit_(std::move(visit)) {
  for (const auto& entry : module_.named_modules()) {
    paths_.emplace(entry.value._ivalue().get(), entry.name);
  }
}

BothValues GraphWalk::Run(const std::array<torch::Tensor, 2>& batches) {
  const auto graph = module_.get_method("forward").graph();
  std::vector<BothValues> arguments = {{c10::IValue(module_._ivalue()), c10::IValue(module_._ivalue())},
                                       {c10::IValue(batches[0]), c10::IValue(batches[1])}};
  // What the caller may leave out.
  const auto& schema = module_.get_method("forward").function().getSchema();
  for (std::size_t i = 2; i < schema.arguments().size(); ++i) {
    const auto& standard = schema.arguments()[i].default_value();
    if (!standard) throw Error(ErrorKind::kData, "onnx: forward of the model takes more than one input");
    arguments.push_back({*standard, *standard});
  }
  return Call(*graph, std::move(arguments), "").at(0);
}

std::vector<BothValues> GraphWalk::Call(const torch::jit::Graph& graph, std::vector<BothValues> arguments,
                                        const std::string& scope) {
  const std::string outer = std::exchange(scope_, scope);
  Values values;
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) values[graph.inputs()[i]] = std::move(arguments.at(i));
  RunBlock(*graph.block(), values);
  std::vector<BothValues> results;
  for (const torch::jit::Value* output : graph.outputs()) results.push_back(values.at(output));
  scope_ = outer;
  return results;
}

void GraphWalk::RunBlock(const torch::jit::Block& block, Values& values) {
  for (const torch::jit::Node* node : block.nodes()) RunNode(*node, values);
}

void GraphWalk::RunNode(const torch::jit::Node& node, Values& values) {
  if (node.kind() == prim::If) {
    RunIf(node, values);
  } else if (node.kind() == prim::Loop) {
    RunLoop(node, values);
  } else if (node.kind() == prim::CallMethod || node.kind() == prim::CallFunction) {
    RunCall(node, values);
  } else if (!RunStructure(node, values)) {
    RunOperation(node, values);
  }
}

void GraphWalk::RunIf(const torch::jit::Node& node, Values& values) {
  const BothValues& condition = values.at(node.input(0));
  if (condition[0].toBool() != condition[1].toBool()) {
    RefuseWay(node, scope_, "a branch depends on the size of the batch");
  }
  const torch::jit::Block* const taken = node.blocks().at(condition[0].toBool() ? 0 : 1);
  RunBlock(*taken, values);
  for (std::size_t i = 0; i < node.outputs().size(); ++i) {
    values[node.outputs()[i]] = values.at(taken->outputs()[i]);
  }
}

void GraphWalk::RunLoop(const torch::jit::Node& node, Values& values) {
  const torch::jit::Block& body = *node.blocks().at(0);
  const BothValues most = values.at(node.input(0));
  BothValues again = values.at(node.input(1));
  std::vector<BothValues> carried;
  for (std::size_t i = 2; i < node.inputs().size(); ++i) carried.push_back(values.at(node.input(i)));
  const auto goes_on = [&](std::int64_t round, std::size_t run) {
    return round < most[run].toInt() && again[run].toBool();
  };
  for (std::int64_t round = 0;; ++round) {
    if (goes_on(round, 0) != goes_on(round, 1)) {
      RefuseWay(node, scope_, "how often a loop runs depends on the size of the batch");
    }
    if (!goes_on(round, 0)) break;
    values[body.inputs()[0]] = {c10::IValue(round), c10::IValue(round)};
    for (std::size_t i = 0; i < carried.size(); ++i) values[body.inputs()[i + 1]] = carried[i];
    RunBlock(body, values);
    again = values.at(body.outputs()[0]);
    for (std::size_t i = 0; i < carried.size(); ++i) carried[i] = values.at(body.outputs()[i + 1]);
  }
  for (std::size_t i = 0; i < carried.size(); ++i) values[node.outputs()[i]] = carried[i];
}

void GraphWalk::RunCall(const torch::jit::Node& node, Values& values) {
  std::vector<BothValues> arguments;
  std::shared_ptr<torch::jit::Graph> graph;
  std::string scope = scope_;
  if (node.kind() == prim::CallFunction) {
    const auto type = node.input(0)->type()->expect<c10::FunctionType>();
    if (!type->function()->isGraphFunction()) RefuseWay(node, scope_, "code that is not TorchScript");
    graph = torch::jit::toGraphFunction(*type->function()).graph();
  } else {
    const auto object = values.at(node.input(0))[0].toObject();
    graph = torch::jit::toGraphFunction(object->type()->getMethod(node.s(c10::attr::name))).graph();
    const auto path = paths_.find(object.get());
    if (path != paths_.end()) scope = path->second;
  }
  for (const torch::jit::Value* input : node.inputs()) {
    if (!IsFunction(*input)) arguments.push_back(values.at(input));
  }
  auto results = Call(*graph, std::move(arguments), scope);
  for (std::size_t i = 0; i < results.size(); ++i) values[node.outputs()[i]] = std::move(results[i]);
}

bool GraphWalk::RunStructure(const torch::jit::Node& node, Values& values) {
  if (node.kind() == prim::Constant) {
    if (IsFunction(*node.output())) return true;
    const auto constant = torch::jit::toIValue(node.output());
    if (!constant) RefuseWay(node, scope_, "a constant that is no value");
    values[node.output()] = {*constant, *constant};
    return true;
  }
  if (node.kind() == prim::RaiseException) {
    throw Error(ErrorKind::kData, "onnx: the model raises an exception at " + PlaceOf(node, scope_));
  }
  if (node.kind() == prim::Print) return true;
  std::function<void(torch::jit::Stack&)> run;
  if (node.kind() == prim::GetAttr) {
    run = [&](auto& stack) { stack = {stack[0].toObjectRef().getAttr(node.s(c10::attr::name))}; };
  } else if (node.kind() == prim::SetAttr) {
    run = [&](auto& stack) {
      stack[0].toObject()->setAttr(node.s(c10::attr::name), stack[1]);
      stack.clear();
    };
  } else if (node.kind() == prim::ListConstruct) {
    run = [&](auto& stack) { stack = {ListOf(*node.output()->type(), stack)}; };
  } else if (node.kind() == prim::TupleConstruct) {
    run = [](auto& stack) { stack = {c10::ivalue::Tuple::create(stack)}; };
  } else if (node.kind() == prim::DictConstruct) {
    run = [&](auto& stack) { stack = {DictionaryOf(*node.output()->type(), stack)}; };
  } else if (node.kind() == prim::ListUnpack) {
    run = [](auto& stack) { stack = stack[0].toListRef().vec(); };
  } else if (node.kind() == prim::TupleUnpack) {
    run = [](auto& stack) { stack = stack[0].toTupleRef().elements().vec(); };
  } else if (node.kind() == prim::TupleSlice) {
    run = [&](auto& stack) {
      const std::vector<c10::IValue> all = stack[0].toTupleRef().elements().vec();
      stack = {c10::ivalue::Tuple::create(
          std::vector<c10::IValue>(all.begin() + node.i(c10::attr::beg), all.begin() + node.i(c10::attr::end)))};
    };
  } else if (node.kind() == prim::isinstance) {
    run = [&](auto& stack) {
      const auto& types = node.tys(c10::attr::types);
      const c10::TypePtr own = stack[0].type();
      stack = {std::any_of(types.begin(), types.end(), [&](const auto& type) { return own->isSubtypeOf(*type); })};
    };
  } else if (node.kind() == prim::unchecked_cast) {
    run = [](auto&) {};
  } else if (node.kind() == prim::Uninitialized) {
    run = [](auto& stack) { stack = {c10::IValue()}; };
  } else {
    return false;
  }
  for (std::size_t batch = 0; batch < 2; ++batch) {
    torch::jit::Stack stack;
    for (const torch::jit::Value* input : node.inputs()) stack.push_back(values.at(input)[batch]);
    run(stack);
    for (std::size_t i = 0; i < node.outputs().size(); ++i) values[node.outputs()[i]][batch] = stack.at(i);
  }
  return true;
}

void GraphWalk::RunOperation(const torch::jit::Node& node, Values& values) {
  WalkedOperation operation{.node = node, .inputs = {}, .outputs = {}, .scope = scope_};
  try {
    torch::jit::Operation run = node.getOperation();
    for (std::size_t batch = 0; batch < 2; ++batch) {
      torch::jit::Stack stack;
      for (const torch::jit::Value* input : node.inputs()) stack.push_back(values.at(input)[batch]);
      operation.inputs[batch] = stack;
      if (node.maybeSchema() != nullptr && node.schema().is_vararg()) {
        stack.emplace_back(static_cast<std::int64_t>(node.inputs().size()));
      }
      run(stack);
      operation.outputs[batch] = std::move(stack);
      for (std::size_t i = 0; i < node.outputs().size(); ++i) {
        values[node.outputs()[i]][batch] = operation.outputs[batch].at(i);
      }
    }
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kData, fmt::format("onnx: {} fails: {}", operation.Place(), TorchReason(error)));
  }
  visit_(operation);
}

}  // namespace bitplan
