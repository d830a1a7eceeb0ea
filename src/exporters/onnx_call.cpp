#include "exporters/onnx_call.h"

#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "models/stored_tensors.h"

namespace bitplan {
namespace {

const void* KeyOfTensor(const torch::Tensor& tensor) { return tensor.unsafeGetTensorImpl(); }
const void* KeyOfStorage(const torch::Tensor& tensor) {
  return tensor.has_storage() ? static_cast<const void*>(tensor.storage().unsafeGetStorageImpl()) : KeyOfTensor(tensor);
}

bool SameValues(const torch::Tensor& a, const torch::Tensor& b) {
  return KeyOfTensor(a) == KeyOfTensor(b) || (a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
                                              (a.eq(b) | (a.ne(a) & b.ne(b))).all().item<bool>());
}

bool SameView(const torch::Tensor& a, const torch::Tensor& b) {
  return a.data_ptr() == b.data_ptr() && a.sizes() == b.sizes() && a.strides() == b.strides() &&
         a.scalar_type() == b.scalar_type();
}

constexpr char kOfBatch[] =
    "onnx: a tensor that the model makes depends on the size of the batch in a way that ONNX "
    "cannot be told; export --to packed or torchscript";

}  // namespace

OnnxNames::OnnxNames(OnnxGraph& graph, const QuantizedNetwork& network, const torch::jit::Module& module)
    : graph_(graph) {
  for (const QuantizedLayer& layer : network.layers) {
    const torch::Tensor weight = GetTensor(module, layer.parameter);
    planned_[KeyOfStorage(weight)].push_back({weight, layer.parameter, IntegersOf(layer)});
  }
  for (const auto& entry : module.named_parameters()) paths_.emplace(KeyOfTensor(entry.value), entry.name);
  for (const auto& entry : module.named_buffers()) paths_.emplace(KeyOfTensor(entry.value), entry.name);
}

void OnnxNames::Name(const torch::Tensor& tensor, const std::string& name) {
  entries_[KeyOfTensor(tensor)] = {.tensor = tensor, .name = name, .unusable = {}};
}

void OnnxNames::Forget(const torch::Tensor& tensor, const std::string& why) {
  entries_[KeyOfTensor(tensor)] = {.tensor = tensor, .name = {}, .unusable = why};
}

void OnnxNames::Written(const torch::Tensor& tensor) {
  written_.insert(KeyOfStorage(tensor));
  for (auto& [key, entry] : entries_) {
    if (key != KeyOfTensor(tensor) && KeyOfStorage(entry.tensor) == KeyOfStorage(tensor)) {
      entry.unusable =
          "onnx: the model writes into a part of a tensor and reads the whole, or the other way round; "
          "make a new tensor instead";
    }
  }
}

bool OnnxNames::Depends(const c10::IValue& value) const {
  bool depends = false;
  ForEachTensor(value, "",
                [&](const std::string&, const torch::Tensor& tensor) { depends = depends || Knows(tensor); });
  return depends;
}

bool OnnxNames::Knows(const torch::Tensor& tensor) const { return entries_.contains(KeyOfTensor(tensor)); }

std::string OnnxNames::Of(const torch::Tensor& first, const torch::Tensor& second) {
  const auto known = entries_.find(KeyOfTensor(first));
  if (known != entries_.end()) {
    if (!known->second.unusable.empty()) throw Error(ErrorKind::kData, known->second.unusable);
    return known->second.name;
  }
  if (written_.contains(KeyOfStorage(first))) {
    throw Error(ErrorKind::kData,
                "onnx: the model writes activations into a part of a constant; make a new tensor instead");
  }
  return SameValues(first, second) ? ConstantOf(first) : FromBatch(first, second);
}

std::string OnnxNames::ConstantOf(const torch::Tensor& tensor) {
  for (const auto& [constant, name] : constants_) {
    if (SameView(constant, tensor)) return name;
  }
  const auto sharing = planned_.find(KeyOfStorage(tensor));
  if (sharing != planned_.end() && tensor.scalar_type() == torch::kFloat32) {
    for (const Planned& layer : sharing->second) {
      if (const auto integers = IntegersAs(layer.integers, layer.weight, tensor)) {
        constants_.emplace_back(tensor, graph_.Weight(*integers, layer.parameter));
        return constants_.back().second;
      }
    }
  }
  const auto path = paths_.find(KeyOfTensor(tensor));
  const std::string name = graph_.Constant(tensor, path == paths_.end() ? "" : path->second);
  if (path != paths_.end()) constants_.emplace_back(tensor, name);
  return name;
}

// Zeros and the like with as many rows as the batch, the size of the batch as a number, and its counting numbers.
std::string OnnxNames::FromBatch(const torch::Tensor& first, const torch::Tensor& second) {
  const Extents sizes = ExtentsOf(first, second);
  if (first.numel() == 1 && second.numel() == 1) {
    const Extent value{first.to(torch::kInt64).item<std::int64_t>(), second.to(torch::kInt64).item<std::int64_t>()};
    if (value.times() == 0) throw Error(ErrorKind::kData, kOfBatch);
    std::string name = graph_.Batch(value.times());
    if (first.scalar_type() != torch::kInt64) name = graph_.Cast(name, first.scalar_type());
    return graph_.Reshape(name, sizes);
  }
  torch::Tensor one = first, other = second;
  for (std::int64_t d = 0; d < first.dim(); ++d) {
    if (sizes[static_cast<std::size_t>(d)].fixed()) continue;
    one = one.narrow(d, 0, 1);
    other = other.narrow(d, 0, 1);
  }
  if (SameValues(one, other) && SameValues(one.expand_as(first), first) &&
      SameValues(other.expand_as(second), second)) {
    return graph_.Add("Expand", {graph_.Constant(one), graph_.Shape(sizes)});
  }
  const bool counts = first.dim() == 1 && first.scalar_type() == torch::kInt64 && sizes[0].times() > 0 &&
                      first.equal(torch::arange(first.numel())) && second.equal(torch::arange(second.numel()));
  if (!counts) throw Error(ErrorKind::kData, kOfBatch);
  const std::string count = graph_.Add("Squeeze", {graph_.Batch(sizes[0].times()), graph_.Ints({0})});
  return graph_.Add("Range", {graph_.Number(0, torch::kInt64), count, graph_.Number(1, torch::kInt64)});
}

int OnnxCall::Find(Argument argument) const {
  if (argument.position >= 0) {
    return argument.position < static_cast<int>(operation_.inputs[0].size()) ? argument.position : -1;
  }
  if (operation_.node.maybeSchema() == nullptr) return -1;
  const auto index = operation_.node.schema().argumentIndexWithName(std::string(argument.name));
  return index ? *index : -1;
}

const c10::IValue& OnnxCall::Value(Argument argument, std::size_t walk) const {
  const int index = Find(argument);
  if (index < 0) Refuse(fmt::format("has no argument '{}'", argument.name));
  return operation_.inputs[walk][static_cast<std::size_t>(index)];
}

const c10::IValue& OnnxCall::Same(Argument argument) const {
  const c10::IValue &first = Value(argument, 0), &second = Value(argument, 1);
  const auto differs = [&] {
    if (first.isTensor()) return names_.Depends(first) || !SameValues(first.toTensor(), second.toTensor());
    if (first.isList() && first.toListRef().size() != second.toListRef().size()) return true;
    if (first.isIntList()) return first.toIntVector() != second.toIntVector();
    return (first.isInt() && first.toInt() != second.toInt()) ||
           (first.isDouble() && first.toDouble() != second.toDouble());
  };
  if (differs()) Refuse("has an argument that depends on the size of the batch or on activations");
  return first;
}

bool OnnxCall::Has(Argument argument) const {
  const int index = Find(argument);
  if (index < 0) return false;
  const c10::IValue& value = operation_.inputs[0][static_cast<std::size_t>(index)];
  return !value.isNone() && !(value.isTensor() && !value.toTensor().defined());
}

std::int64_t OnnxCall::Int(Argument argument) const {
  const c10::IValue& value = Same(argument);
  if (value.isBool()) return value.toBool() ? 1 : 0;
  return value.isTensor() ? value.toTensor().item<std::int64_t>() : value.toInt();
}
std::int64_t OnnxCall::Int(Argument argument, std::int64_t otherwise) const {
  return Has(argument) ? Int(argument) : otherwise;
}
double OnnxCall::Real(Argument argument) const {
  const c10::IValue& value = Same(argument);
  return value.isTensor() ? value.toTensor().item<double>() : value.toScalar().to<double>();
}
double OnnxCall::Real(Argument argument, double otherwise) const { return Has(argument) ? Real(argument) : otherwise; }
bool OnnxCall::Flag(Argument argument, bool otherwise) const { return Has(argument) ? Int(argument) != 0 : otherwise; }
std::string OnnxCall::Word(Argument argument) const { return Same(argument).toStringRef(); }

std::vector<std::int64_t> OnnxCall::Ints(Argument argument, std::size_t count) const {
  const c10::IValue& value = Same(argument);
  if (value.isInt()) return std::vector<std::int64_t>(count, value.toInt());
  std::vector<std::int64_t> numbers = value.toIntVector();
  if (numbers.size() == 1 && count > 1) numbers.assign(count, numbers.front());
  return numbers;
}

torch::Tensor OnnxCall::Tensor(Argument argument) const {
  const c10::IValue& value = Value(argument);
  if (!value.isTensor()) Refuse("has an argument that should be a tensor");
  return value.toTensor();
}

Extents OnnxCall::SizesOf(Argument argument) const {
  return ExtentsOf(Tensor(argument), Value(argument, 1).toTensor());
}

std::int64_t OnnxCall::Dim(Argument argument, std::int64_t dims) const {
  const std::int64_t dim = Int(argument);
  return dim < 0 ? dim + std::max<std::int64_t>(dims, 1) : dim;
}

std::string OnnxCall::Name(Argument argument) const {
  return names_.Of(Tensor(argument), Value(argument, 1).toTensor());
}

std::string OnnxCall::As(Argument argument, torch::ScalarType type) const {
  const c10::IValue& value = Value(argument);
  if (value.isTensor()) {
    const torch::Tensor tensor = value.toTensor(), other = Value(argument, 1).toTensor();
    if (tensor.scalar_type() == type) return names_.Of(tensor, other);
    if (!names_.Knows(tensor) && tensor.dim() == 0) return names_.Of(tensor.to(type), other.to(type));
    return graph_.Cast(names_.Of(tensor, other), type);
  }
  const auto number = [&](std::size_t walk) {
    return torch::scalar_tensor(Value(argument, walk).toScalar(), torch::dtype(torch::kFloat64)).to(type);
  };
  return names_.Of(number(0), number(1));
}

std::vector<std::string> OnnxCall::NamesIn(Argument list) const {
  const auto first = Value(list, 0).toTensorVector(), second = Value(list, 1).toTensorVector();
  std::vector<std::string> names;
  for (std::size_t i = 0; i < first.size(); ++i) names.push_back(names_.Of(first[i], second[i]));
  return names;
}

std::string OnnxCall::NameInList(Argument list, std::size_t index) const {
  const auto element = [&](std::size_t walk) { return Value(list, walk).toListRef()[index].toTensor(); };
  return names_.Of(element(0), element(1));
}

std::string OperatorName(const torch::jit::Node& node) {
  std::string name = node.kind().toUnqualString();
  if (name.size() > 2 && name.ends_with('_') && !name.ends_with("__")) name.pop_back();
  return name;
}

std::vector<torch::Tensor> TensorsIn(const std::vector<c10::IValue>& values) {
  std::vector<torch::Tensor> tensors;
  for (const c10::IValue& value : values) {
    ForEachTensor(value, "", [&](const std::string&, const torch::Tensor& tensor) { tensors.push_back(tensor); });
  }
  return tensors;
}

torch::Tensor OnnxCall::Out(std::size_t index) const { return TensorsIn(operation_.outputs[0]).at(index); }
std::size_t OnnxCall::Outs() const { return TensorsIn(operation_.outputs[0]).size(); }
Extents OnnxCall::OutSizes(std::size_t index) const {
  return ExtentsOf(Out(index), TensorsIn(operation_.outputs[1]).at(index));
}

void OnnxCall::Refuse(const std::string& why) const {
  throw Error(ErrorKind::kData, fmt::format("onnx: {} {}; change the model, or export --to packed or torchscript",
                                            operation_.Place(), why));
}

}  // namespace bitplan
