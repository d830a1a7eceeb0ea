// Activations. Those that ONNX does not have are written with what it has.
#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

// A translator for an operator of one operand with a name of its own in ONNX.
template <const char* kType>
Names Plain(const OnnxCall& call) {
  return {OnSelf(call, kType)};
}

#define BITPLAN_ONNX_PLAIN(name) constexpr char k##name[] = #name
BITPLAN_ONNX_PLAIN(Relu);
BITPLAN_ONNX_PLAIN(Sigmoid);
BITPLAN_ONNX_PLAIN(Tanh);
BITPLAN_ONNX_PLAIN(HardSwish);
BITPLAN_ONNX_PLAIN(Softsign);
BITPLAN_ONNX_PLAIN(Selu);
#undef BITPLAN_ONNX_PLAIN

std::string Const(const OnnxCall& call, double value) { return call.graph().Number(value, call.Out().scalar_type()); }

std::string Between(const OnnxCall& call, const std::string& from, double low, double high) {
  return call.graph().Add("Clip", {from, Const(call, low), Const(call, high)});
}

Names Relu6(const OnnxCall& call) { return {Between(call, call.Name(0), 0.0, 6.0)}; }
Names HardTanh(const OnnxCall& call) {
  return {Between(call, call.Name(0), call.Real("min_val"), call.Real("max_val"))};
}
Names HardSigmoid(const OnnxCall& call) {
  return {OnSelf(call, "HardSigmoid", {{"alpha", 1.0F / 6.0F}, {"beta", 0.5F}})};
}
Names LeakyRelu(const OnnxCall& call) {
  return {OnSelf(call, "LeakyRelu", {{"alpha", static_cast<float>(call.Real("negative_slope"))}})};
}
Names Elu(const OnnxCall& call) {
  if (call.Real("scale", 1.0) != 1.0 || call.Real("input_scale", 1.0) != 1.0) call.Refuse("has scales of its own");
  return {OnSelf(call, "Elu", {{"alpha", static_cast<float>(call.Real("alpha"))}})};
}
Names Celu(const OnnxCall& call) { return {OnSelf(call, "Celu", {{"alpha", static_cast<float>(call.Real("alpha"))}})}; }
Names Gelu(const OnnxCall& call) {
  const std::string approximate = call.Has("approximate") ? call.Word("approximate") : "none";
  return {OnSelf(call, "Gelu", {{"approximate", approximate}})};
}

Names Silu(const OnnxCall& call) {
  return {call.graph().Add("Mul", {call.Name(0), call.graph().Add("Sigmoid", {call.Name(0)})})};
}

Names Mish(const OnnxCall& call) {
  const std::string soft = call.graph().Add("Softplus", {call.Name(0)});
  return {call.graph().Add("Mul", {call.Name(0), call.graph().Add("Tanh", {soft})})};
}

// log(1 + exp(beta x)) / beta; beyond the threshold PyTorch takes the line that it has nearly reached.
Names Softplus(const OnnxCall& call) {
  OnnxGraph& graph = call.graph();
  const double beta = call.Real("beta", 1.0), threshold = call.Real("threshold", 20.0);
  const std::string scaled = beta == 1.0 ? call.Name(0) : graph.Add("Mul", {call.Name(0), Const(call, beta)});
  std::string soft = graph.Add("Softplus", {scaled});
  if (beta != 1.0) soft = graph.Add("Div", {soft, Const(call, beta)});
  return {graph.Add("Where", {graph.Add("Greater", {scaled, Const(call, threshold)}), call.Name(0), soft})};
}

Names LogSigmoid(const OnnxCall& call) {
  const std::string soft = call.graph().Add("Softplus", {call.graph().Add("Neg", {call.Name(0)})});
  return {call.graph().Add("Neg", {soft})};
}

Names Softmax(const OnnxCall& call) {
  return {call.graph().Add("Softmax", {call.As(0, call.Out().scalar_type())}, {{"axis", call.Int("dim")}})};
}
Names LogSoftmax(const OnnxCall& call) {
  return {call.graph().Add("LogSoftmax", {call.As(0, call.Out().scalar_type())}, {{"axis", call.Int("dim")}})};
}

Names Prelu(const OnnxCall& call) {
  std::string slope = call.Name("weight");
  if (call.Tensor("weight").numel() > 1 && call.Dims(0) > 2) {
    std::vector<std::int64_t> along(static_cast<std::size_t>(call.Dims(0) - 1), 1);
    along[0] = -1;
    slope = call.graph().Add("Reshape", {slope, call.graph().Ints(along)});
  }
  return {call.graph().Add("PRelu", {call.Name(0), slope})};
}

Names Glu(const OnnxCall& call) {
  const auto halves = call.graph().AddMany(
      "Split", {call.Name(0)}, {{"axis", call.Dim("dim", call.Dims(0))}, {"num_outputs", std::int64_t{2}}}, 2);
  return {call.graph().Add("Mul", {halves[0], call.graph().Add("Sigmoid", {halves[1]})})};
}

Names Threshold(const OnnxCall& call) {
  const std::string above = call.graph().Add("Greater", {call.Name(0), Const(call, call.Real("threshold"))});
  return {call.graph().Add("Where", {above, call.Name(0), Const(call, call.Real("value"))})};
}

}  // namespace

void AddActivations(OnnxTranslators& all) {
  all["relu"] = Plain<kRelu>;
  all["sigmoid"] = Plain<kSigmoid>;
  all["tanh"] = Plain<kTanh>;
  all["hardswish"] = Plain<kHardSwish>;
  all["softsign"] = Plain<kSoftsign>;
  all["selu"] = Plain<kSelu>;
  all["relu6"] = Relu6;
  all["hardtanh"] = HardTanh;
  all["hardsigmoid"] = HardSigmoid;
  all["leaky_relu"] = LeakyRelu;
  all["elu"] = Elu;
  all["celu"] = Celu;
  all["gelu"] = Gelu;
  all["silu"] = Silu;
  all["mish"] = Mish;
  all["softplus"] = Softplus;
  all["log_sigmoid"] = LogSigmoid;
  all["softmax"] = all["_softmax"] = Softmax;
  all["log_softmax"] = all["_log_softmax"] = LogSoftmax;
  all["prelu"] = Prelu;
  all["glu"] = Glu;
  all["threshold"] = Threshold;
}

}  // namespace bitplan::onnx_operators
