#include "exporters/onnx_graph.h"

#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

constexpr std::size_t kSmallBytes = 1024;  // constants up to here are looked for before they are stored again

std::string RawBytes(const torch::Tensor& tensor) {
  const torch::Tensor whole = tensor.detach().contiguous();
  return {static_cast<const char*>(whole.data_ptr()), whole.nbytes()};
}

}  // namespace

Extents ExtentsOf(const torch::Tensor& first, const torch::Tensor& second) {
  if (first.dim() != second.dim()) {
    throw Error(ErrorKind::kData, "onnx: the number of dimensions of a tensor depends on the size of the batch");
  }
  Extents extents;
  for (std::int64_t d = 0; d < first.dim(); ++d) extents.push_back({first.size(d), second.size(d)});
  return extents;
}

onnx_file::Type OnnxType(torch::ScalarType type) {
  using onnx_file::Type;
  switch (type) {
    case torch::kFloat32:
      return Type::kFloat;
    case torch::kFloat64:
      return Type::kDouble;
    case torch::kFloat16:
      return Type::kHalf;
    case torch::kBFloat16:
      return Type::kBfloat16;
    case torch::kInt64:
      return Type::kInt64;
    case torch::kInt32:
      return Type::kInt32;
    case torch::kInt16:
      return Type::kInt16;
    case torch::kInt8:
      return Type::kInt8;
    case torch::kUInt8:
      return Type::kUint8;
    case torch::kBool:
      return Type::kBool;
    default:
      break;
  }
  throw Error(ErrorKind::kData, fmt::format("onnx: tensors of type {} have no place in the file", c10::toString(type)));
}

std::string OnnxGraph::Unique(const std::string& wish) {
  std::string name = wish;
  while (!names_.insert(name).second) name = fmt::format("{}_{}", wish, ++endings_[wish]);
  return name;
}

std::vector<std::string> OnnxGraph::AddMany(const std::string& type, const std::vector<std::string>& inputs,
                                            const std::vector<onnx_file::Attribute>& attributes, std::size_t outputs) {
  onnx_file::Operation operation{.type = type, .inputs = inputs, .outputs = {}, .attributes = attributes, .name = {}};
  operation.name = Unique(scope_.empty() ? type : scope_ + "/" + type);
  for (std::size_t i = 0; i < outputs; ++i) {
    operation.outputs.push_back(Unique(operation.name + (outputs == 1 ? ":out" : fmt::format(":out{}", i))));
  }
  operations_.push_back(operation);
  return operation.outputs;
}

std::string OnnxGraph::Add(const std::string& type, const std::vector<std::string>& inputs,
                           const std::vector<onnx_file::Attribute>& attributes) {
  return AddMany(type, inputs, attributes, 1).front();
}

std::string OnnxGraph::AddAs(const std::string& type, const std::string& input, const std::string& output) {
  operations_.push_back(
      {.type = type, .inputs = {input}, .outputs = {Unique(output)}, .attributes = {}, .name = Unique(type)});
  return operations_.back().outputs.front();
}

std::string OnnxGraph::Constant(const torch::Tensor& value, const std::string& name) {
  onnx_file::Initializer constant{
      .name = {}, .type = OnnxType(value.scalar_type()), .dims = value.sizes().vec(), .bytes = RawBytes(value)};
  std::string content;
  if (constant.bytes.size() <= kSmallBytes) {
    content = fmt::format("{} {} ", static_cast<int>(constant.type), fmt::join(constant.dims, ",")) + constant.bytes;
    const auto known = small_.find(content);
    if (known != small_.end()) return known->second;
  }
  constant.name = Unique(name.empty() ? "constant" : name);
  if (!content.empty()) small_.emplace(content, constant.name);
  initializers_.push_back(std::move(constant));
  return initializers_.back().name;
}

std::string OnnxGraph::Ints(const std::vector<std::int64_t>& values) {
  return Constant(torch::tensor(values, torch::kInt64));
}

std::string OnnxGraph::Number(double value, torch::ScalarType type) {
  return Constant(torch::full({}, value, torch::kFloat64).to(type));
}

std::string OnnxGraph::Weight(const IntegerWeight& weight, const std::string& name) {
  // Its value is 0.0 unless said.
  if (weight.zeros) return Add("ConstantOfShape", {Ints(weight.integers.sizes().vec())});
  if (weights_ == OnnxWeights::kQuantNodes) return QuantNode(weight, name);
  onnx_file::Initializer integers{.name = Unique(name + ":integers"),
                                  .type = weight.type,
                                  .dims = weight.integers.sizes().vec(),
                                  .bytes = IntegerBytes(weight.integers, weight.type)};
  initializers_.push_back(integers);
  if (weight.scales.numel() == 1) {
    return Add("DequantizeLinear", {integers.name, Constant(weight.scales.reshape({}), name + ":scale")});
  }
  return Add("DequantizeLinear", {integers.name, Constant(weight.scales, name + ":scales")}, {{"axis", weight.axis}});
}

// QONNX: y = (round(clip(x / scale + zero_point)) - zero_point) * scale, and sign(x) * scale with sign(0) = 1.
std::string OnnxGraph::QuantNode(const IntegerWeight& weight, const std::string& name) {
  const std::int64_t dims = weight.integers.dim();
  std::vector<std::int64_t> along(static_cast<std::size_t>(dims), 1);
  if (weight.scales.numel() > 1) along[static_cast<std::size_t>(weight.axis)] = -1;
  const torch::Tensor scales = weight.scales.reshape(along);
  const torch::Tensor values = weight.integers.to(torch::kFloat32) * scales;
  const std::string floats = Constant(values, name);
  // Of this node alone: tools fold them into the node and remove them.
  const auto own = [&](const torch::Tensor& value, const char* what) {
    const torch::Tensor stored = value.numel() == 1 ? value.reshape({}) : value;
    initializers_.push_back({.name = Unique(name + what),
                             .type = onnx_file::Type::kFloat,
                             .dims = stored.sizes().vec(),
                             .bytes = RawBytes(stored)});
    return initializers_.back().name;
  };
  constexpr int kSignBits = 2;  // of -1 and 1
  if (weight.odd && weight.bits == kSignBits) {
    const std::string output = Add("BipolarQuant", {floats, own(scales.abs(), ":scale")});
    operations_.back().domain = kQonnxDomain;
    return output;
  }
  // A channel whose scale is zero holds zeros: any scale gives them back, and zero cannot be divided by.
  const torch::Tensor used = torch::where(scales == 0, torch::ones_like(scales), scales);
  const auto bits = static_cast<float>(std::max(weight.bits, kSignBits));
  const std::string output = Add(
      "Quant", {floats, own(used, ":scale"), own(torch::zeros({}), ":zero_point"), own(torch::full({}, bits), ":bits")},
      {{"signed", std::int64_t{1}},
       {"narrow", std::int64_t{weight.odd ? 1 : 0}},
       {"rounding_mode", std::string("ROUND")}});
  operations_.back().domain = kQonnxDomain;
  return output;
}

std::string OnnxGraph::Batch(std::int64_t times) {
  const auto known = batches_.find(times);
  if (known != batches_.end()) return known->second;
  const std::string name = times == 1 ? Add("Shape", {input_}, {{"start", std::int64_t{0}}, {"end", std::int64_t{1}}})
                                      : Add("Mul", {Batch(), Ints({times})});
  batches_.emplace(times, name);
  return name;
}

std::string OnnxGraph::Shape(const Extents& extents) {
  std::vector<std::string> parts;
  std::vector<std::int64_t> fixed;
  const auto end_fixed = [&] {
    if (!fixed.empty()) parts.push_back(Ints(fixed));
    fixed.clear();
  };
  for (const Extent& extent : extents) {
    if (extent.fixed()) {
      fixed.push_back(extent.first);
      continue;
    }
    if (extent.times() == 0) throw Error(ErrorKind::kData, "onnx: a size of a tensor is no multiple of the batch");
    end_fixed();
    parts.push_back(Batch(extent.times()));
  }
  end_fixed();
  if (parts.empty()) return Ints({});
  return parts.size() == 1 ? parts.front() : Add("Concat", parts, {{"axis", std::int64_t{0}}});
}

std::string OnnxGraph::Reshape(const std::string& from, const Extents& to) {
  const auto depend = std::count_if(to.begin(), to.end(), [](const Extent& extent) { return !extent.fixed(); });
  if (depend > 1) return Add("Reshape", {from, Shape(to)});
  std::vector<std::int64_t> sizes;  // one size may follow from the others
  for (const Extent& extent : to) sizes.push_back(extent.fixed() ? extent.first : -1);
  return Add("Reshape", {from, Ints(sizes)});
}

std::string OnnxGraph::Cast(const std::string& from, torch::ScalarType to) {
  return Add("Cast", {from}, {{"to", static_cast<std::int64_t>(OnnxType(to))}});
}

void OnnxGraph::MoveInto(onnx_file::Model& model, const std::vector<std::string>& outputs) && {
  std::set<std::string> read(outputs.begin(), outputs.end());
  std::vector<bool> kept(operations_.size());
  for (std::size_t i = operations_.size(); i-- > 0;) {
    const auto& operation = operations_[i];
    kept[i] = std::any_of(operation.outputs.begin(), operation.outputs.end(),
                          [&](const std::string& output) { return read.contains(output); });
    if (kept[i]) read.insert(operation.inputs.begin(), operation.inputs.end());
  }
  for (std::size_t i = 0; i < operations_.size(); ++i) {
    if (kept[i]) model.operations.push_back(std::move(operations_[i]));
  }
  for (auto& initializer : initializers_) {
    if (read.contains(initializer.name)) model.initializers.push_back(std::move(initializer));
  }
}

}  // namespace bitplan
