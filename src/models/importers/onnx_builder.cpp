#include "models/importers/onnx_builder.h"

#include <ATen/ExpandUtils.h>
#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/utils.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "models/torch_reason.h"

namespace bitplan::onnx_import {
namespace {

using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

constexpr std::int64_t kMostNumbers = std::int64_t{1} << 26;  // of one value in a walk
constexpr std::int64_t kMostMade = std::int64_t{1} << 33;     // of all values of all walks
constexpr std::int64_t kMostDims = 16;

constexpr std::size_t kOnce = 1;  // how often an operation on constants is carried out

void CheckCount(std::int64_t count) {
  if (count > kMostNumbers) throw Refusal(fmt::format("makes a value of more than {} numbers", kMostNumbers));
}

std::int64_t Product(c10::IntArrayRef sizes) {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) {
    if (size != 0 && __builtin_mul_overflow(product, size, &product)) CheckCount(kMostNumbers + 1);
    if (size == 0) return 0;
  }
  return product;
}

// Operations whose result may be much larger than each operand.
bool Broadcasts(std::string_view operation) {
  static const std::set<std::string_view> names = {
      "add", "sub", "mul", "div", "pow",       "where", "maximum",     "minimum",    "eq",         "ne",
      "lt",  "le",  "gt",  "ge",  "remainder", "fmod",  "logical_and", "logical_or", "logical_xor"};
  return names.contains(operation);
}

// Before an operation runs: Refusal where its result would be too large.
void CheckResult(std::string_view operation, const torch::jit::Stack& operands) {
  std::vector<torch::Tensor> tensors;
  for (const c10::IValue& operand : operands) {
    if (operand.isTensor() && operand.toTensor().defined()) tensors.push_back(operand.toTensor());
  }
  if (Broadcasts(operation)) {
    std::vector<std::int64_t> sizes;
    for (const torch::Tensor& tensor : tensors) sizes = at::infer_size(sizes, tensor.sizes());
    CheckCount(Product(sizes));
  } else if (operation == "matmul" && tensors.size() == 2 && tensors[0].dim() >= 2 && tensors[1].dim() >= 2) {
    const auto a = tensors[0].sizes(), b = tensors[1].sizes();
    auto sizes = at::infer_size(a.slice(0, a.size() - 2), b.slice(0, b.size() - 2));
    sizes.push_back(a[a.size() - 2]);
    sizes.push_back(b.back());
    CheckCount(Product(sizes));
  } else if (operation == "linear" && tensors.size() >= 2 && tensors[0].dim() >= 1 && tensors[1].dim() == 2) {
    auto sizes = tensors[0].sizes().vec();
    sizes.back() = tensors[1].size(0);
    CheckCount(Product(sizes));
  } else if (operation == "index_select" && tensors.size() == 2) {
    auto sizes = tensors[0].sizes().vec();
    sizes.push_back(tensors[1].numel());
    CheckCount(tensors[0].dim() > 0 ? Product(sizes) / std::max<std::int64_t>(1, tensors[0].size(operands[1].toInt()))
                                    : 1);
  } else if (operation == "embedding" && tensors.size() == 2 && tensors[0].dim() == 2) {
    CheckCount(Product({tensors[0].size(1), tensors[1].numel()}));
  }
}

bool SameInAll(const std::vector<torch::Tensor>& walks) {
  for (const torch::Tensor& other : walks) {
    const torch::Tensor& first = walks.front();
    if (other.sizes() != first.sizes() || other.scalar_type() != first.scalar_type() || !other.equal(first))
      return false;
  }
  return true;
}

// A single number stands in the code; it is no tensor that a plan would have to list.
bool IsNumber(const torch::Tensor& tensor) { return tensor.dim() == 0; }

}  // namespace

OnnxBuilder::OnnxBuilder(std::vector<Walk> walks, torch::ScalarType type, std::int64_t fixed_batch)
    : walks_(std::move(walks)), fixed_batch_(fixed_batch), module_(make_.Empty("Onnx")) {
  self_ = graph_->addInput("self")->setType(module_.type());
  input_ = std::make_shared<TracedValue>();
  input_->value = graph_->addInput("x");
  input_->source = Source::kData;
  for (const Walk& walk : walks_) {
    CheckCount(Product(walk.input));
    input_->walks.push_back(torch::zeros(walk.input, type));
  }
  batch_ = graph_->insert(c10::aten::size, {input_->value, std::int64_t{0}});
}

OnnxValue OnnxBuilder::Constant(const torch::Tensor& value, const std::string& name) {
  auto constant = std::make_shared<TracedValue>();
  constant->name = name;
  constant->walks.assign(walks_.size(), value);
  return constant;
}

// Appends one operation and carries it out, `walks` times, once for every value of its operands.
std::vector<OnnxBuilder::Operand> OnnxBuilder::Append(Graph& graph, const char* operation,
                                                      const std::vector<Operand>& operands, const Keywords& keywords,
                                                      std::size_t walks) {
  std::vector<torch::jit::NamedValue> inputs, named;
  for (const auto& [name, constant] : keywords) named.emplace_back(name, constant);
  std::unordered_map<const Value*, std::vector<c10::IValue>> known;
  for (const Operand& operand : operands) {
    inputs.emplace_back(operand.value);
    known[operand.value] = operand.walks;
  }
  Node* const before = graph.return_node()->prev();
  Value* packed = nullptr;
  try {
    packed = graph.insert(c10::Symbol::fromQualString(std::string("aten::") + operation), inputs, named);
  } catch (const std::exception& error) {
    throw Refusal("fails: " + TorchReason(error));
  }
  for (Node* node = before->next(); node != graph.return_node(); node = node->next()) {
    if (node->kind() == c10::prim::TupleConstruct) continue;
    for (std::size_t w = 0; w < walks; ++w) {
      torch::jit::Stack stack;
      if (node->kind() == c10::prim::Constant) {
        stack.push_back(torch::jit::toIValue(node->output()).value());
      } else {
        for (const Value* in : node->inputs()) stack.push_back(known.at(in)[w]);
        try {
          CheckResult(operation, stack);
          node->getOperation()(stack);
        } catch (const std::exception& error) {
          if (w > 0 && fixed_batch_ > 0) throw FixedBatchRefusal("fails: " + TorchReason(error));
          throw Refusal("fails: " + TorchReason(error));
        }
      }
      for (std::size_t i = 0; i < node->outputs().size(); ++i) {
        c10::IValue& made = stack[stack.size() - node->outputs().size() + i];
        if (made.isTensor() && made.toTensor().defined()) {
          CheckCount(made.toTensor().numel());
          if (made.toTensor().dim() > kMostDims) throw Refusal("makes a value of too many dimensions");
          made_ += made.toTensor().numel();
          if (made_ > kMostMade) throw Refusal("brings a pass to more numbers than bitplan follows");
        }
        known[node->outputs()[i]].push_back(std::move(made));
      }
    }
  }
  std::vector<Operand> made;
  const bool many = packed->type()->kind() == c10::TypeKind::TupleType;
  for (Value* output : many ? torch::jit::createTupleUnpack(packed).vec() : std::vector<Value*>{packed}) {
    made.push_back({output, known.at(output)});
  }
  return made;
}

std::vector<OnnxValue> OnnxBuilder::Fold(const char* operation, const Arguments& arguments, const Keywords& keywords) {
  Graph graph;
  std::vector<Operand> operands;
  for (const Argument& argument : arguments) {
    if (const auto* const value = std::get_if<OnnxValue>(&argument.held)) {
      operands.push_back({graph.addInput(), {(*value)->tensor()}});
    } else if (const auto* const list = std::get_if<std::vector<OnnxValue>>(&argument.held)) {
      c10::List<torch::Tensor> tensors;
      for (const OnnxValue& item : *list) tensors.push_back(item->tensor());
      operands.push_back({graph.addInput()->setType(c10::ListType::ofTensors()), {tensors}});
    } else {
      c10::IValue constant;
      if (const auto* const given = std::get_if<c10::IValue>(&argument.held)) constant = *given;
      if (const auto* const number = std::get_if<Number>(&argument.held)) constant = number->at(0);
      if (const auto* const numbers = std::get_if<Numbers>(&argument.held)) {
        c10::List<std::int64_t> list;
        for (const Number& item : *numbers) list.push_back(item.at(0));
        constant = list;
      }
      operands.push_back({graph.insertConstant(constant), {constant}});
    }
  }
  std::vector<OnnxValue> made;
  for (const Operand& result : Append(graph, operation, operands, keywords, kOnce)) {
    made.push_back(Constant(result.walks.front().toTensor(), ""));
  }
  return made;
}

OnnxBuilder::Operand OnnxBuilder::ListOf(const std::vector<Operand>& items, const c10::TypePtr& type) {
  std::vector<Value*> values;
  for (const Operand& item : items) values.push_back(item.value);
  Node* const node = graph_->insertNode(graph_->createList(type, values));
  Operand list{node->output(), {}};
  for (std::size_t w = 0; w < walks_.size(); ++w) {
    if (type->kind() == c10::TypeKind::TensorType) {
      c10::List<torch::Tensor> tensors;
      for (const Operand& item : items) tensors.push_back(item.walks[w].toTensor());
      list.walks.emplace_back(tensors);
    } else {
      c10::List<std::int64_t> numbers;
      for (const Operand& item : items) numbers.push_back(item.walks[w].toInt());
      list.walks.emplace_back(numbers);
    }
  }
  return list;
}

OnnxBuilder::Operand OnnxBuilder::OperandOf(const Argument& argument, Source source) {
  const auto constant = [&](const c10::IValue& value) -> Operand {
    return {graph_->insertConstant(value), std::vector<c10::IValue>(walks_.size(), value)};
  };
  if (const auto* const given = std::get_if<c10::IValue>(&argument.held)) return constant(*given);
  if (const auto* const value = std::get_if<OnnxValue>(&argument.held)) {
    return {ValueOf(*value, source), {(*value)->walks.begin(), (*value)->walks.end()}};
  }
  if (const auto* const number = std::get_if<Number>(&argument.held)) {
    if (number->constant()) return constant(number->at(0));
    return {number->value, {number->walks.begin(), number->walks.end()}};
  }
  std::vector<Operand> items;
  if (const auto* const list = std::get_if<std::vector<OnnxValue>>(&argument.held)) {
    for (const OnnxValue& item : *list) items.push_back(OperandOf(item, source));
    return ListOf(items, c10::TensorType::get());
  }
  const auto& numbers = std::get<Numbers>(argument.held);
  if (std::all_of(numbers.begin(), numbers.end(), [](const Number& item) { return item.constant(); })) {
    c10::List<std::int64_t> list;
    for (const Number& item : numbers) list.push_back(item.at(0));
    return constant(list);
  }
  for (const Number& item : numbers) items.push_back(OperandOf(item, source));
  return ListOf(items, c10::IntType::get());
}

std::vector<OnnxValue> OnnxBuilder::RunMany(const char* operation, const Arguments& arguments,
                                            const Keywords& keywords) {
  const torch::NoGradGuard no_grad;
  Source source = Source::kConstant;
  for (const Argument& argument : arguments) {
    const auto note = [&](const OnnxValue& value) { source = std::max(source, value->source); };
    const auto note_number = [&](const Number& number) {
      if (!number.constant()) source = std::max(source, Source::kShape);
    };
    if (const auto* const value = std::get_if<OnnxValue>(&argument.held)) note(*value);
    if (const auto* const number = std::get_if<Number>(&argument.held)) note_number(*number);
    if (const auto* const list = std::get_if<std::vector<OnnxValue>>(&argument.held)) {
      for (const OnnxValue& item : *list) note(item);
    }
    if (const auto* const numbers = std::get_if<Numbers>(&argument.held)) {
      for (const Number& item : *numbers) note_number(item);
    }
  }
  if (source == Source::kConstant) return Fold(operation, arguments, keywords);
  std::vector<Operand> operands;
  for (const Argument& argument : arguments) operands.push_back(OperandOf(argument, source));
  std::vector<OnnxValue> made;
  for (const Operand& result : Append(*graph_, operation, operands, keywords, walks_.size())) {
    auto value = std::make_shared<TracedValue>();
    value->value = result.value;
    value->source = operation == std::string_view("_shape_as_tensor") ? Source::kShape : source;
    for (const c10::IValue& walk : result.walks) value->walks.push_back(walk.toTensor());
    if (value->source == Source::kShape && SameInAll(value->walks)) {
      value->source = Source::kConstant;
      value->value = nullptr;
    }
    made.push_back(std::move(value));
  }
  return made;
}

OnnxValue OnnxBuilder::Run(const char* operation, const Arguments& arguments, const Keywords& keywords) {
  return RunMany(operation, arguments, keywords).front();
}

OnnxValue OnnxBuilder::Turned(const OnnxValue& matrix) {
  if (matrix->turned_of != nullptr) return matrix->turned_of;
  if (!matrix->constant()) return Run("t", {matrix});
  OnnxValue turned = Constant(matrix->tensor().t(), "");
  turned->turned_of = matrix;
  return turned;
}

Value* OnnxBuilder::Attribute(const std::string& path, const torch::Tensor& value, bool parameter) {
  Value* owner = self_;
  torch::jit::Module module = module_;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; begin = dot + 1, dot = path.find('.', begin)) {
    const std::string prefix = path.substr(0, dot), part = path.substr(begin, dot - begin);
    const auto [found, fresh] = modules_.try_emplace(prefix, module);
    if (fresh) {
      found->second = make_.Empty("Part");
      module.register_module(part, found->second);
      owners_[prefix] = graph_->insertGetAttr(owner, part);
    }
    module = found->second;
    owner = owners_[prefix];
  }
  const std::string name = path.substr(begin);
  if (parameter) {
    module.register_parameter(name, value, false);
  } else {
    module.register_buffer(name, value);
  }
  return graph_->insertGetAttr(owner, name);
}

// The place of a value in the graph; constants get theirs when an operation on activations first needs them.
Value* OnnxBuilder::ValueOf(const OnnxValue& value, Source user) {
  if (value->value != nullptr) return value->value;
  if (value->turned_of != nullptr) {
    value->value = graph_->insert(c10::aten::t, {ValueOf(value->turned_of, Source::kData)});
    return value->value;
  }
  const torch::Tensor& tensor = value->tensor();
  const bool of_shape = user != Source::kData && !value->parameter;
  if (of_shape || IsNumber(tensor)) return graph_->insertConstant(tensor);
  const bool finite = tensor.is_floating_point() && tensor.isfinite().all().item<bool>();
  value->value = Attribute(paths_.Take(value->name.empty() ? "constant" : value->name), tensor.contiguous(),
                           value->parameter && finite);
  return value->value;
}

Number OnnxBuilder::Batch(std::int64_t times) {
  Sizes walks;
  for (const Walk& walk : walks_) walks.push_back(walk.batch() * times);
  if (times == 1) return {batch_, walks};
  Value*& value = batches_[times];
  if (value == nullptr) value = graph_->insert(c10::aten::mul, {batch_, times});
  return {value, walks};
}

// A constant, a multiple of the batch, or what `otherwise` puts into the graph.
Number OnnxBuilder::NumberOf(Sizes walks, const std::function<Value*()>& otherwise) {
  if (std::all_of(walks.begin(), walks.end(), [&](std::int64_t size) { return size == walks.front(); })) {
    return {walks.front()};
  }
  const std::int64_t times = walks.front() / walks_.front().batch();
  bool multiple = times != 0;
  for (std::size_t w = 0; w < walks_.size(); ++w) multiple = multiple && walks[w] == times * walks_[w].batch();
  return multiple ? Batch(times) : Number(otherwise(), std::move(walks));
}

Numbers OnnxBuilder::SizesOf(const OnnxValue& value) {
  Numbers sizes;
  for (std::int64_t d = 0; d < value->rank(); ++d) {
    Sizes walks;
    for (const torch::Tensor& walk : value->walks) {
      if (walk.dim() != value->rank()) throw FixedBatchRefusal("has another number of dimensions for other batches");
      walks.push_back(walk.size(d));
    }
    sizes.push_back(NumberOf(walks, [&] {
      return graph_->insert(c10::aten::size, {ValueOf(value, Source::kData), d});
    }));
  }
  return sizes;
}

Numbers OnnxBuilder::NumbersIn(const OnnxValue& value) {
  constexpr std::int64_t kMost = 1024;
  if (value->source == Source::kData) {
    throw Refusal("takes a shape or a place from the numbers of activations, which no plan can follow");
  }
  if (value->tensor().numel() > kMost) throw Refusal(fmt::format("takes more than {} numbers as a shape", kMost));
  std::vector<torch::Tensor> flat;
  for (const torch::Tensor& walk : value->walks) {
    if (walk.numel() != value->tensor().numel()) throw Refusal("takes a shape of no fixed length");
    flat.push_back(walk.to(torch::kInt64).reshape({-1}).contiguous());
  }
  Numbers numbers;
  for (std::int64_t i = 0; i < value->tensor().numel(); ++i) {
    Sizes walks;
    for (const torch::Tensor& walk : flat) walks.push_back(walk.data_ptr<std::int64_t>()[i]);
    numbers.push_back(NumberOf(walks, [&] {
      const OnnxValue one = Run("select", {Run("reshape", {value, Numbers{-1}}), std::int64_t{0}, i});
      return graph_->insert(c10::aten::Int, {one->value});
    }));
  }
  return numbers;
}

std::int64_t OnnxBuilder::BatchDim(const OnnxValue& value) const {
  std::int64_t found = -1;
  for (std::int64_t d = 0; d < value->rank(); ++d) {
    bool varies = false;
    for (const torch::Tensor& walk : value->walks) {
      if (walk.dim() != value->rank()) return -1;
      varies = varies || walk.size(d) != value->tensor().size(d);
    }
    if (varies && found >= 0) return -1;
    if (varies) found = d;
  }
  return found;
}

void OnnxBuilder::CheckSize(const Numbers& sizes) const {
  for (std::size_t w = 0; w < walks_.size(); ++w) {
    Sizes of_walk;
    for (const Number& size : sizes) of_walk.push_back(size.at(w));
    CheckCount(Product(of_walk));
  }
}

torch::jit::Module OnnxBuilder::Finish(const OnnxValue& output) {
  graph_->registerOutput(ValueOf(output, Source::kData));
  torch::jit::EliminateDeadCode(graph_);
  const c10::QualifiedName name(*module_.type()->name(), "forward");
  module_.type()->addMethod(module_._ivalue()->compilation_unit()->create_function(name, graph_));
  module_.eval();
  return module_;
}

}  // namespace bitplan::onnx_import
