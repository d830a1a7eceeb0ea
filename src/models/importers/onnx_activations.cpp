// Functions of single numbers.
#include <cmath>
#include <string>

#include "models/importers/onnx_call.h"

namespace bitplan::onnx_import {
namespace {

// The same function under another name.
OnnxTranslator Same(const char* operation) {
  return [operation](const OnnxCall& call) -> std::vector<OnnxValue> { return {call.Run(operation, {call.In(0)})}; };
}

std::vector<OnnxValue> LeakyRelu(const OnnxCall& call) {
  return {call.Run("leaky_relu", {call.In(0), call.Real("alpha", 0.01)})};
}

std::vector<OnnxValue> PRelu(const OnnxCall& call) {
  const OnnxValue &x = call.In(0), &slope = call.In(1);
  const torch::Tensor& slopes = slope->tensor();
  const std::int64_t channels = x->rank() >= 2 ? x->tensor().size(1) : 1;
  // [channels, 1, ..]: along dimension 1, as it broadcasts from the back.
  const bool by_channel = slope->constant() && slopes.numel() == channels && x->rank() >= 2 &&
                          slope->rank() >= x->rank() - 1 && slope->rank() <= x->rank() &&
                          slopes.size(slope->rank() - x->rank() + 1) == channels;
  if (slope->constant() && (slopes.numel() == 1 || by_channel)) {
    const OnnxValue flat = call.graph().Constant(slopes.reshape({-1}), slope->name);
    flat->parameter = slope->parameter;
    return {call.Run("prelu", {x, flat})};
  }
  return {call.Run("where", {call.Run("ge", {x, 0.0}), x, call.Run("mul", {x, slope})})};
}

std::vector<OnnxValue> Elu(const OnnxCall& call) {
  return {call.Run("elu", {call.In(0), call.Real("alpha", 1.0), 1.0, 1.0})};
}

std::vector<OnnxValue> Celu(const OnnxCall& call) {
  const double alpha = call.Real("alpha", 1.0);
  if (alpha == 0.0) call.Refuse("has alpha = 0");
  return {call.Run("celu", {call.In(0), alpha})};
}

std::vector<OnnxValue> Selu(const OnnxCall& call) {
  const double alpha = call.Real("alpha", 1.67326319217681884765625);
  return {call.Run("elu", {call.In(0), alpha, call.Real("gamma", 1.05070102214813232421875), 1.0})};
}

std::vector<OnnxValue> Gelu(const OnnxCall& call) {
  const std::string approximate = call.Text("approximate", "none");
  if (approximate != "none" && approximate != "tanh") call.Refuse("has an unknown approximation");
  return {call.Run("gelu", {call.In(0)}, {{"approximate", approximate}})};
}

std::vector<OnnxValue> HardSigmoid(const OnnxCall& call) {
  const double alpha = call.Real("alpha", 0.2), beta = call.Real("beta", 0.5);
  if (std::abs(alpha - 1.0 / 6.0) < 1e-6 && beta == 0.5) return {call.Run("hardsigmoid", {call.In(0)})};
  const OnnxValue line = call.Run("add", {call.Run("mul", {call.In(0), alpha}), beta});
  return {call.Run("clamp", {line, 0.0, 1.0})};
}

std::vector<OnnxValue> Softsign(const OnnxCall& call) {
  return {call.Run("div", {call.In(0), call.Run("add", {call.Run("abs", {call.In(0)}), 1.0})})};
}

std::vector<OnnxValue> ThresholdedRelu(const OnnxCall& call) {
  return {call.Run("threshold", {call.In(0), call.Real("alpha", 1.0), 0.0})};
}

std::vector<OnnxValue> Swish(const OnnxCall& call) {
  const double alpha = call.Real("alpha", 1.0);
  if (alpha == 1.0) return {call.Run("silu", {call.In(0)})};
  return {call.Run("mul", {call.In(0), call.Run("sigmoid", {call.Run("mul", {call.In(0), alpha})})})};
}

std::vector<OnnxValue> Clip(const OnnxCall& call) {
  const bool integers = !call.In(0)->tensor().is_floating_point();
  const auto bound = [&](std::size_t input, const char* attribute) -> Argument {
    if (call.opset() < 11) {
      return call.HasAttribute(attribute) ? Argument(call.Real(attribute, 0.0)) : Argument(std::nullopt);
    }
    if (!call.Has(input)) return std::nullopt;
    const torch::Tensor value = call.ConstantIn(input);
    if (value.numel() != 1) call.Refuse("has a bound that is not one number");
    return integers ? Argument(value.item<std::int64_t>()) : Argument(value.item<double>());
  };
  const Argument low = bound(1, "min"), high = bound(2, "max");
  const auto none = [](const Argument& argument) { return std::get<c10::IValue>(argument.held).isNone(); };
  if (none(low) && none(high)) return {call.In(0)};
  return {call.Run("clamp", {call.In(0), low, high})};
}

// Before operator set 13 over all dimensions from `axis` on as one, since then over `axis` alone.
OnnxTranslator SoftmaxLike(const char* operation) {
  return [operation](const OnnxCall& call) -> std::vector<OnnxValue> {
    const OnnxValue& x = call.In(0);
    const bool flat = call.opset() < 13;
    const std::int64_t axis = call.Axis(call.Int("axis", flat ? 1 : -1), x->rank());
    if (!flat || axis == x->rank() - 1) return {call.Run(operation, {x, axis, std::nullopt})};
    const OnnxValue rows = call.Run("flatten", {x, axis, -1});
    return {call.Run("reshape", {call.Run(operation, {rows, axis, std::nullopt}), call.graph().SizesOf(x)})};
  };
}

}  // namespace

void AddActivations(OnnxTranslators& all) {
  for (const auto& [name, operation] : std::map<std::string, const char*>{
           {"Relu", "relu"},   {"Sigmoid", "sigmoid"}, {"Tanh", "tanh"},   {"Softplus", "softplus"},
           {"Mish", "mish"},   {"Erf", "erf"},         {"Exp", "exp"},     {"Log", "log"},
           {"Sqrt", "sqrt"},   {"Abs", "abs"},         {"Neg", "neg"},     {"Reciprocal", "reciprocal"},
           {"Floor", "floor"}, {"Ceil", "ceil"},       {"Round", "round"}, {"Sin", "sin"},
           {"Cos", "cos"},     {"Tan", "tan"},         {"Asin", "asin"},   {"Acos", "acos"},
           {"Atan", "atan"},   {"Sinh", "sinh"},       {"Cosh", "cosh"},   {"Asinh", "asinh"},
           {"Acosh", "acosh"}, {"Atanh", "atanh"},     {"Sign", "sign"},   {"HardSwish", "hardswish"},
           {"IsNaN", "isnan"}, {"Not", "logical_not"}}) {
    all[name] = Same(operation);
  }
  all["LeakyRelu"] = LeakyRelu;
  all["PRelu"] = PRelu;
  all["Elu"] = Elu;
  all["Celu"] = Celu;
  all["Selu"] = Selu;
  all["Gelu"] = Gelu;
  all["HardSigmoid"] = HardSigmoid;
  all["Softsign"] = Softsign;
  all["ThresholdedRelu"] = ThresholdedRelu;
  all["Swish"] = Swish;
  all["Clip"] = Clip;
  all["Softmax"] = SoftmaxLike("softmax");
  all["LogSoftmax"] = SoftmaxLike("log_softmax");
}

}  // namespace bitplan::onnx_import
