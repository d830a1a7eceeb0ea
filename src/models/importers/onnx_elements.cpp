// Arithmetic and comparisons of values that broadcast, casts, and what passes its input on.
#include <fmt/format.h>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_tensor.h"

namespace bitplan::onnx_import {
namespace {

// One number that is the same for all batches becomes a number of the code. Its value must not lift the dimensions.
Argument Operand(const OnnxValue& value, const OnnxValue& other) {
  const torch::Tensor& tensor = value->tensor();
  const bool number = value->constant() && tensor.numel() == 1 && value->rank() <= other->rank() &&
                      !other->constant() && tensor.scalar_type() != torch::kBool &&
                      tensor.is_floating_point() == other->tensor().is_floating_point();
  if (!number) return value;
  return tensor.is_floating_point() ? Argument(tensor.item<double>()) : Argument(tensor.item<std::int64_t>());
}

void CheckSameKind(const OnnxCall& call, const OnnxValue& a, const OnnxValue& b) {
  const bool same = a->tensor().is_floating_point() == b->tensor().is_floating_point();
  if (!same) call.Refuse("combines real numbers with integers");
}

OnnxTranslator Binary(const char* operation, bool commutes = false) {
  return [=](const OnnxCall& call) -> std::vector<OnnxValue> {
    const OnnxValue &a = call.In(0), &b = call.In(1);
    CheckSameKind(call, a, b);
    // Only the second operand may be a number of the code.
    const Argument first = Operand(a, b);
    const bool turn = commutes && !std::holds_alternative<OnnxValue>(first.held);
    if (turn) return {call.Run(operation, {b, first})};
    return {call.Run(operation, {a, Operand(b, a)})};
  };
}

std::vector<OnnxValue> Div(const OnnxCall& call) {
  const OnnxValue &a = call.In(0), &b = call.In(1);
  CheckSameKind(call, a, b);
  if (a->tensor().is_floating_point()) return {call.Run("div", {a, Operand(b, a)})};
  for (const torch::Tensor& walk : b->walks) {
    if (b->source != Source::kData && walk.eq(0).any().item<bool>()) call.Refuse("divides by zero");
  }
  return {call.Run("div", {a, Operand(b, a)}, {{"rounding_mode", std::string("trunc")}})};
}

std::vector<OnnxValue> Pow(const OnnxCall& call) {
  const OnnxValue &a = call.In(0), &b = call.In(1);
  const torch::Tensor& exponent = b->tensor();
  if (b->constant() && exponent.numel() == 1 && b->rank() <= a->rank() && a->tensor().is_floating_point()) {
    const double power = exponent.to(torch::kDouble).item<double>();
    if (power == 2.0) return {call.Run("square", {a})};
    if (power == 0.5) return {call.Run("sqrt", {a})};
    return {call.Run("pow", {a, power})};
  }
  return {call.Run("pow", {a, b})};
}

std::vector<OnnxValue> Mod(const OnnxCall& call) {
  CheckSameKind(call, call.In(0), call.In(1));
  for (const torch::Tensor& walk : call.In(1)->walks) {
    const bool integers = !walk.is_floating_point();
    if (integers && (call.In(1)->source == Source::kData || walk.eq(0).any().item<bool>())) {
      call.Refuse("takes the remainder by zero, or by an activation");
    }
  }
  return {call.Run(call.Int("fmod", 0) != 0 ? "fmod" : "remainder", {call.In(0), call.In(1)})};
}

// min, max and sum of any number of values.
OnnxTranslator Variadic(const char* operation) {
  return [operation](const OnnxCall& call) -> std::vector<OnnxValue> {
    OnnxValue result = call.In(0);
    for (std::size_t i = 1; i < call.inputs(); ++i) {
      CheckSameKind(call, result, call.In(i));
      result = call.Run(operation, {result, call.In(i)});
    }
    return {result};
  };
}

std::vector<OnnxValue> Mean(const OnnxCall& call) {
  const OnnxValue sum = Variadic("add")(call).front();
  return {call.Run("div", {sum, static_cast<double>(call.inputs())})};
}

std::vector<OnnxValue> Where(const OnnxCall& call) {
  CheckSameKind(call, call.In(1), call.In(2));
  if (call.In(0)->tensor().scalar_type() != torch::kBool) call.Refuse("has a condition that is not of truth values");
  return {call.Run("where", {call.In(0), call.In(1), call.In(2)})};
}

OnnxValue CastTo(const OnnxCall& call, const OnnxValue& value, torch::ScalarType type) {
  return value->tensor().scalar_type() == type ? value : call.Run("to", {value, type});
}

std::vector<OnnxValue> Cast(const OnnxCall& call) {
  call.Ignore("saturate");
  call.Ignore("round_mode");
  const std::int64_t to = call.Int("to", 0);
  const auto type = TorchType(to);
  if (!type) call.Refuse(fmt::format("casts to the unknown type {}", to));
  return {CastTo(call, call.In(0), *type)};
}

std::vector<OnnxValue> CastLike(const OnnxCall& call) {
  call.Ignore("saturate");
  return {CastTo(call, call.In(0), call.In(1)->tensor().scalar_type())};
}

// Exporters give equal vectors one tensor and the others' names by Identity: these become tensors of their own. Weights
// stay one.
std::vector<OnnxValue> Identity(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  if (!x->constant() || !x->parameter || x->rank() != 1) return {x};
  const OnnxValue own = call.graph().Constant(x->tensor().clone(), "");
  own->parameter = true;
  return {own};
}

std::vector<OnnxValue> Dropout(const OnnxCall& call) {
  call.Ignore("ratio");
  call.Ignore("seed");
  if (call.Has(2) && call.ConstantIn(2).any().item<bool>()) {
    call.Refuse("drops out at random; export the model after model.eval()");
  }
  return {call.In(0)};
}

// A weight of integers with its scales, as one float tensor.
std::vector<OnnxValue> DequantizeLinear(const OnnxCall& call) {
  const OnnxValue& codes = call.In(0);
  if (!codes->constant()) call.Refuse("makes activations of integers; give the float model");
  const torch::Tensor integers = codes->tensor();
  torch::Tensor scale = call.ConstantIn(1);
  torch::Tensor zero = call.Has(2) ? call.ConstantIn(2).to(torch::kFloat) : torch::zeros_like(scale);
  const std::int64_t block = call.Int("block_size", 0), axis = call.Int("axis", 1);
  call.Ignore("output_dtype");
  if (zero.numel() != scale.numel()) call.Refuse("has not as many zero points as scales");
  if (scale.numel() == 1 && block == 0) {
    scale = scale.reshape({});
    zero = zero.reshape({});
  } else {
    const std::int64_t along = call.Axis(axis, codes->rank());
    const std::int64_t size = integers.size(along);
    if (block > 0) {
      if (scale.dim() != integers.dim() || (size + block - 1) / block != scale.size(along)) {
        call.Refuse("has scales that do not fit its blocks");
      }
      scale = scale.repeat_interleave(block, along).narrow(along, 0, size);
      zero = zero.repeat_interleave(block, along).narrow(along, 0, size);
    } else {
      if (scale.dim() != 1 || scale.size(0) != size) call.Refuse("has not one scale for every channel");
      std::vector<std::int64_t> shape(static_cast<std::size_t>(integers.dim()), 1);
      shape[static_cast<std::size_t>(along)] = -1;
      scale = scale.reshape(shape);
      zero = zero.reshape(shape);
    }
  }
  const OnnxValue weight = call.graph().Constant(((integers.to(torch::kFloat) - zero) * scale).contiguous(), "");
  weight->parameter = weight->tensor().numel() > 1;
  for (const char* const ending : {":integers", "_quantized", "_int8"}) {
    if (codes->name.ends_with(ending))
      weight->name = codes->name.substr(0, codes->name.size() - std::string(ending).size());
  }
  return {weight};
}

}  // namespace

void AddElements(OnnxTranslators& all) {
  all["Add"] = Binary("add", /*commutes=*/true);
  all["Mul"] = Binary("mul", /*commutes=*/true);
  all["Sub"] = Binary("sub");
  for (const auto& [name, operation] : std::map<std::string, const char*>{{"Equal", "eq"},
                                                                          {"Less", "lt"},
                                                                          {"LessOrEqual", "le"},
                                                                          {"Greater", "gt"},
                                                                          {"GreaterOrEqual", "ge"},
                                                                          {"And", "logical_and"},
                                                                          {"Or", "logical_or"},
                                                                          {"Xor", "logical_xor"}}) {
    const bool logical = operation[0] == 'l' && operation[1] == 'o';
    all[name] = logical ? Variadic(operation) : Binary(operation);
  }
  all["Div"] = Div;
  all["Pow"] = Pow;
  all["Mod"] = Mod;
  all["Min"] = Variadic("minimum");
  all["Max"] = Variadic("maximum");
  all["Sum"] = Variadic("add");
  all["Mean"] = Mean;
  all["Where"] = Where;
  all["Cast"] = Cast;
  all["CastLike"] = CastLike;
  all["Identity"] = Identity;
  all["Dropout"] = Dropout;
  all["DequantizeLinear"] = DequantizeLinear;
}

}  // namespace bitplan::onnx_import
