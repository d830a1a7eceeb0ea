// Arithmetic, comparisons and casts, element by element, with the types that PyTorch would use.
#include <map>

#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

// The type in which two operands meet.
torch::ScalarType CommonType(const OnnxCall& call) {
  const c10::IValue &one = call.Value(0), &other = call.Value(1);
  if (one.isTensor() && other.isTensor()) return at::result_type(one.toTensor(), other.toTensor());
  return one.isTensor() ? at::result_type(one.toTensor(), other.toScalar())
                        : at::result_type(one.toScalar(), other.toTensor());
}

// Name of the ONNX operator behind one of PyTorch.
std::string OnnxTypeOf(const OnnxCall& call) {
  static const std::map<std::string, std::string> types = {
      {"add", "Add"},        {"sub", "Sub"},         {"mul", "Mul"},
      {"pow", "Pow"},        {"maximum", "Max"},     {"minimum", "Min"},
      {"max", "Max"},        {"min", "Min"},         {"lt", "Less"},
      {"le", "LessOrEqual"}, {"gt", "Greater"},      {"ge", "GreaterOrEqual"},
      {"eq", "Equal"},       {"logical_and", "And"}, {"__and__", "And"},
      {"logical_or", "Or"},  {"__or__", "Or"},       {"logical_xor", "Xor"},
      {"__xor__", "Xor"},    {"neg", "Neg"},         {"abs", "Abs"},
      {"exp", "Exp"},        {"log", "Log"},         {"sqrt", "Sqrt"},
      {"sin", "Sin"},        {"cos", "Cos"},         {"tan", "Tan"},
      {"erf", "Erf"},        {"floor", "Floor"},     {"ceil", "Ceil"},
      {"round", "Round"},    {"sign", "Sign"},       {"reciprocal", "Reciprocal"},
      {"atan", "Atan"},      {"sinh", "Sinh"},       {"cosh", "Cosh"},
      {"isnan", "IsNaN"},    {"isinf", "IsInf"}};
  return types.at(call.Operator());
}

Names Unary(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  return {call.graph().Add(OnnxTypeOf(call), {type == torch::kBool ? call.Name(0) : call.As(0, type)})};
}

// self, other in their common type; other times alpha where there is one.
Names Operands(const OnnxCall& call, torch::ScalarType type) {
  Names operands = {call.As(0, type), call.As(1, type)};
  if (const double alpha = call.Real("alpha", 1.0); alpha != 1.0) {
    operands[1] = call.graph().Add("Mul", {operands[1], call.graph().Number(alpha, type)});
  }
  return operands;
}

Names Binary(const OnnxCall& call) {
  return {call.graph().Add(OnnxTypeOf(call), Operands(call, call.Out().scalar_type()))};
}

Names ReverseSub(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  std::string self = call.As(0, type);
  if (const double alpha = call.Real("alpha", 1.0); alpha != 1.0) {
    self = call.graph().Add("Mul", {self, call.graph().Number(alpha, type)});
  }
  return {call.graph().Add("Sub", {call.As(1, type), self})};
}

Names Compare(const OnnxCall& call) { return {call.graph().Add(OnnxTypeOf(call), Operands(call, CommonType(call)))}; }
Names Unequal(const OnnxCall& call) {
  return {call.graph().Add("Not", {call.graph().Add("Equal", Operands(call, CommonType(call)))})};
}
Names Logical(const OnnxCall& call) {
  if (call.Out().scalar_type() != torch::kBool) call.Refuse("works on the bits of whole numbers");
  return {call.graph().Add(OnnxTypeOf(call), Operands(call, torch::kBool))};
}
Names Not(const OnnxCall& call) {
  if (call.Out().scalar_type() != torch::kBool) call.Refuse("works on the bits of whole numbers");
  return {call.graph().Add("Not", {call.As(0, torch::kBool)})};
}

Names Divide(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  const std::string rounding = call.Has("rounding_mode") ? call.Word("rounding_mode") : "";
  const std::string quotient = call.graph().Add("Div", Operands(call, type));
  const bool whole = !torch::isFloatingType(type);  // ONNX then rounds towards zero
  if (rounding.empty() || (rounding == "trunc" && whole)) return {quotient};
  if (rounding != "floor" || whole) call.Refuse("rounds in a way that ONNX does not know");
  return {call.graph().Add("Floor", {quotient})};
}

Names ReciprocalRoot(const OnnxCall& call) {
  return {call.graph().Add("Reciprocal", {call.graph().Add("Sqrt", {call.As(0, call.Out().scalar_type())})})};
}
Names Square(const OnnxCall& call) { return {call.graph().Add("Mul", {call.Name(0), call.Name(0)})}; }
Names LogOfOnePlus(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  return {call.graph().Add("Log", {call.graph().Add("Add", {call.As(0, type), call.graph().Number(1.0, type)})})};
}
Names ExpMinusOne(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  return {call.graph().Add("Sub", {call.graph().Add("Exp", {call.As(0, type)}), call.graph().Number(1.0, type)})};
}

Names Clamp(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  std::string value = call.As(0, type);
  if (call.Has("min")) value = call.graph().Add("Max", {value, call.As("min", type)});
  if (call.Has("max")) value = call.graph().Add("Min", {value, call.As("max", type)});
  return {value};
}

Names Where(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  return {
      call.graph().Add("Where", {call.As("condition", torch::kBool), call.As("self", type), call.As("other", type)})};
}
Names MaskedFill(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  return {call.graph().Add("Where", {call.As("mask", torch::kBool), call.As("value", type), call.As(0, type)})};
}

// self + value * a * b and self + value * a / b.
Names AddProduct(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  const std::string inner =
      call.graph().Add(call.Operator() == "addcmul" ? "Mul" : "Div", {call.As(1, type), call.As(2, type)});
  return {call.graph().Add(
      "Add", {call.As(0, type), call.graph().Add("Mul", {inner, call.graph().Number(call.Real("value", 1.0), type)})})};
}

// Copies, and changes of the type alone.
Names SameNumbers(const OnnxCall& call) { return {call.As(0, call.Out().scalar_type())}; }

// x.copy_(y): all of x is overwritten.
Names Copy(const OnnxCall& call) {
  return {call.graph().Add("Expand", {call.As("src", call.Out().scalar_type()), call.graph().Shape(call.OutSizes())})};
}

// In eval mode.
Names Dropout(const OnnxCall& call) {
  if (call.Flag("train")) call.Refuse("drops out at random");
  return {call.Name(0)};
}

}  // namespace

std::string OnSelf(const OnnxCall& call, const std::string& type, const std::vector<onnx_file::Attribute>& attributes) {
  return call.graph().Add(type, {call.As(0, call.Out().scalar_type())}, attributes);
}

void AddElements(OnnxTranslators& all) {
  for (const char* name : {"neg", "abs", "exp", "log", "sqrt", "sin", "cos", "tan", "erf", "floor", "ceil", "round",
                           "sign", "reciprocal", "atan", "sinh", "cosh", "isnan", "isinf"}) {
    all[name] = Unary;
  }
  for (const char* name : {"add", "sub", "mul", "pow", "maximum", "minimum"}) all[name] = Binary;
  for (const char* name : {"lt", "le", "gt", "ge", "eq"}) all[name] = Compare;
  for (const char* name : {"logical_and", "logical_or", "logical_xor", "__and__", "__or__", "__xor__"}) {
    all[name] = Logical;
  }
  for (const char* name : {"logical_not", "bitwise_not"}) all[name] = Not;
  for (const char* name : {"div", "true_divide", "floor_divide", "__floordiv__"}) all[name] = Divide;
  for (const char* name : {"clamp", "clip", "clamp_min", "clamp_max"}) all[name] = Clamp;
  for (const char* name : {"to", "type_as", "contiguous", "clone", "detach", "alias", "float", "double", "half", "long",
                           "int", "bool", "cpu", "_cast_Float", "lift_fresh", "requires_grad_", "data", "positive"}) {
    all[name] = SameNumbers;
  }
  for (const char* name : {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}) all[name] = Dropout;
  for (const char* name : {"addcmul", "addcdiv"}) all[name] = AddProduct;
  all["copy"] = Copy;
  all["ne"] = Unequal;
  all["rsub"] = ReverseSub;
  all["rsqrt"] = ReciprocalRoot;
  all["square"] = Square;
  all["log1p"] = LogOfOnePlus;
  all["expm1"] = ExpMinusOne;
  all["where"] = Where;
  all["masked_fill"] = MaskedFill;
}

}  // namespace bitplan::onnx_operators
