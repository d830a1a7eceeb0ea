#include "models/importers/onnx_call.h"

#include <fmt/format.h>

#include <string_view>

namespace bitplan::onnx_import {
namespace {

// Numbers that PyTorch's exporter makes up for tensors that have no name any more: "onnx::Conv_123".
bool IsMadeUp(const std::string& name) { return name.starts_with("onnx::"); }

// "layer1.0.conv1" of a node called "/layer1/layer1.0/conv1/Conv": the modules that it stands in. A second node of its
// kind there has a number, "/layer1/Conv_1", and keeps it: "layer1.Conv_1". Empty for other names.
std::string ScopeOf(std::string_view node, const std::string& type) {
  if (!node.starts_with('/')) return "";
  std::string scope, last;
  const auto add = [&](const std::string& part) {
    if (!last.empty() && part.starts_with(last + ".")) {
      scope += part.substr(last.size());
    } else {
      scope += (scope.empty() ? "" : ".") + part;
    }
    last = part;
  };
  node.remove_prefix(1);
  for (std::size_t slash = node.find('/'); slash != std::string_view::npos; slash = node.find('/')) {
    add(std::string(node.substr(0, slash)));
    node.remove_prefix(slash + 1);
  }
  if (node != type) add(std::string(node));
  return scope;
}

}  // namespace

bool OnnxCall::Has(std::size_t input) const { return input < inputs_.size() && inputs_[input] != nullptr; }

const OnnxValue& OnnxCall::In(std::size_t input) const {
  if (!Has(input)) Refuse(fmt::format("has no input {}", input + 1));
  return inputs_[input];
}

torch::Tensor OnnxCall::ConstantIn(std::size_t input) const {
  if (!In(input)->constant())
    Refuse(fmt::format("takes its input {} from activations; bitplan needs a constant", input + 1));
  return In(input)->tensor();
}

bool OnnxCall::Wants(std::size_t output) const {
  return output < node_.outputs.size() && !node_.outputs[output].empty();
}

const AttributeField* OnnxCall::Find(const std::string& name) const {
  asked_.insert(name);
  const auto found = node_.attributes.find(name);
  return found == node_.attributes.end() ? nullptr : &found->second;
}

bool OnnxCall::HasAttribute(const std::string& name) const { return Find(name) != nullptr; }

std::int64_t OnnxCall::Int(const std::string& name, std::int64_t otherwise) const {
  const AttributeField* const found = Find(name);
  return found == nullptr ? otherwise : found->integer;
}

double OnnxCall::Real(const std::string& name, double otherwise) const {
  const AttributeField* const found = Find(name);
  return found == nullptr ? otherwise : static_cast<double>(found->real);
}

std::string OnnxCall::Text(const std::string& name, const std::string& otherwise) const {
  const AttributeField* const found = Find(name);
  return found == nullptr ? otherwise : found->text;
}

std::optional<Sizes> OnnxCall::Ints(const std::string& name) const {
  const AttributeField* const found = Find(name);
  return found == nullptr ? std::nullopt : std::optional<Sizes>(found->integers);
}

std::optional<std::vector<float>> OnnxCall::Reals(const std::string& name) const {
  const AttributeField* const found = Find(name);
  return found == nullptr ? std::nullopt : std::optional<std::vector<float>>(found->reals);
}

std::optional<std::vector<std::string>> OnnxCall::Texts(const std::string& name) const {
  const AttributeField* const found = Find(name);
  return found == nullptr ? std::nullopt : std::optional<std::vector<std::string>>(found->texts);
}

std::optional<torch::Tensor> OnnxCall::TensorAttribute(const std::string& name) const {
  const AttributeField* const found = Find(name);
  if (found == nullptr || !found->tensor) return std::nullopt;
  return read_(*found->tensor);
}

void OnnxCall::CheckAttributes() const {
  for (const auto& [name, unused] : node_.attributes) {
    if (!asked_.contains(name)) Refuse(fmt::format("has the attribute '{}', which bitplan does not know", Shown(name)));
  }
}

std::int64_t OnnxCall::Axis(std::int64_t axis, std::int64_t rank) const {
  if (axis < -rank || axis >= rank) Refuse(fmt::format("has axis {} for a value of {} dimensions", axis, rank));
  return axis < 0 ? axis + rank : axis;
}

void OnnxCall::NameParts(const OnnxValue& weight, const OnnxValue& bias) const {
  const std::string scope = ScopeOf(node_.name, node_.type);
  if (weight->constant() && IsMadeUp(weight->name)) {
    const std::string known = bias == nullptr ? "" : bias->name;
    if (known.ends_with("bias") && !IsMadeUp(known)) {
      weight->name = known.substr(0, known.size() - 4) + "weight";
    } else if (!scope.empty()) {
      weight->name = scope + ".weight";
    }
  }
  if (bias != nullptr && bias->constant() && IsMadeUp(bias->name) && !scope.empty()) bias->name = scope + ".bias";
}

std::optional<Sizes> AxesOf(const OnnxCall& call, std::int64_t since) {
  if (call.opset() < since) return call.Ints("axes");
  if (!call.Has(1)) return std::nullopt;
  const torch::Tensor axes = call.ConstantIn(1).to(torch::kInt64).reshape({-1}).contiguous();
  return Sizes(axes.data_ptr<std::int64_t>(), axes.data_ptr<std::int64_t>() + axes.numel());
}

}  // namespace bitplan::onnx_import
