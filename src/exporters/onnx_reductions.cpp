// Reductions over dimensions.
#include <algorithm>
#include <numeric>

#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

// The dimensions that a reduction goes over: those of the argument, or all.
Numbers AxesOf(const OnnxCall& call) {
  Numbers axes;
  if (call.Has("dim")) axes = call.Ints("dim");
  if (axes.empty()) {
    axes.resize(static_cast<std::size_t>(call.Dims(0)));
    std::iota(axes.begin(), axes.end(), 0);
  }
  return axes;
}

std::string Reduce(const OnnxCall& call, const std::string& type, const std::string& from, const Numbers& axes,
                   bool keep) {
  return call.graph().Add(type, {from, call.graph().Ints(axes)}, {{"keepdims", std::int64_t{keep ? 1 : 0}}});
}

std::string Reduced(const OnnxCall& call, const std::string& type) {
  return Reduce(call, type, call.As(0, call.Out().scalar_type()), AxesOf(call), call.Flag("keepdim"));
}

Names Mean(const OnnxCall& call) { return {Reduced(call, "ReduceMean")}; }
Names Sum(const OnnxCall& call) { return {Reduced(call, "ReduceSum")}; }
Names Product(const OnnxCall& call) { return {Reduced(call, "ReduceProd")}; }
Names LogSumExp(const OnnxCall& call) { return {Reduced(call, "ReduceLogSumExp")}; }
Names AbsoluteMaximum(const OnnxCall& call) { return {Reduced(call, "ReduceMax")}; }
Names AbsoluteMinimum(const OnnxCall& call) { return {Reduced(call, "ReduceMin")}; }

std::string Positions(const OnnxCall& call, const std::string& type) {
  if (!call.Has("dim")) {
    const std::string flat = call.graph().Add("Reshape", {call.Name(0), call.graph().Ints({-1})});
    return call.graph().Add(type, {flat}, {{"axis", std::int64_t{0}}, {"keepdims", std::int64_t{0}}});
  }
  return call.graph().Add(type, {call.Name(0)},
                          {{"axis", call.Int("dim")}, {"keepdims", std::int64_t{call.Flag("keepdim") ? 1 : 0}}});
}
Names ArgMax(const OnnxCall& call) { return {Positions(call, "ArgMax")}; }
Names ArgMin(const OnnxCall& call) { return {Positions(call, "ArgMin")}; }

// max and min have three forms: of all numbers, along a dimension with positions, of two tensors.
Names Extreme(const OnnxCall& call, const std::string& name) {
  if (call.Has("other")) {
    const auto type = call.Out().scalar_type();
    return {call.graph().Add(name, {call.As(0, type), call.As("other", type)})};
  }
  const std::string values = Reduced(call, "Reduce" + name);
  if (!call.Has("dim")) return {values};
  return {values, Positions(call, "Arg" + name)};
}
Names Maximum(const OnnxCall& call) { return Extreme(call, "Max"); }
Names Minimum(const OnnxCall& call) { return Extreme(call, "Min"); }

// The mean squared distance from the mean, times n / (n - correction).
std::string Variance(const OnnxCall& call) {
  const Numbers axes = AxesOf(call);
  const auto type = call.Out().scalar_type();
  const Extents sizes = call.SizesOf(0);
  std::int64_t count = 1;
  for (const std::int64_t axis : axes) {
    const Extent& size = sizes[static_cast<std::size_t>(axis < 0 ? axis + call.Dims(0) : axis)];
    if (!size.fixed()) call.Refuse("goes over the batch");
    count *= size.first;
  }
  const std::int64_t correction = call.Has("correction") ? call.Int("correction") : call.Flag("unbiased", true) ? 1 : 0;
  OnnxGraph& graph = call.graph();
  const std::string distance = graph.Add("Sub", {call.Name(0), Reduce(call, "ReduceMean", call.Name(0), axes, true)});
  const std::string mean =
      Reduce(call, "ReduceMean", graph.Add("Mul", {distance, distance}), axes, call.Flag("keepdim"));
  if (correction == 0) return mean;
  const double factor = static_cast<double>(count) / static_cast<double>(std::max<std::int64_t>(0, count - correction));
  return graph.Add("Mul", {mean, graph.Number(factor, type)});
}
Names Var(const OnnxCall& call) { return {Variance(call)}; }
Names Std(const OnnxCall& call) { return {call.graph().Add("Sqrt", {Variance(call)})}; }

Names Norm(const OnnxCall& call) {
  const char* const order = call.Has("p") ? "p" : "ord";
  const double p = call.Real(order, 2.0);
  if (p != 1.0 && p != 2.0) call.Refuse("is of an order other than 1 and 2");
  return {Reduced(call, p == 1.0 ? "ReduceL1" : "ReduceL2")};
}

Names CumulativeSum(const OnnxCall& call) {
  const std::string axis = call.graph().Constant(torch::scalar_tensor(call.Int("dim"), torch::kInt64));
  return {call.graph().Add("CumSum", {call.As(0, call.Out().scalar_type()), axis})};
}

Names TopK(const OnnxCall& call) {
  return call.graph().AddMany(
      "TopK", {call.Name(0), call.graph().Ints({call.Int("k")})},
      {{"axis", call.Int("dim")}, {"largest", call.Int("largest")}, {"sorted", call.Int("sorted")}}, 2);
}

}  // namespace

void AddReductions(OnnxTranslators& all) {
  all["mean"] = Mean;
  all["sum"] = Sum;
  all["prod"] = Product;
  all["logsumexp"] = LogSumExp;
  all["amax"] = AbsoluteMaximum;
  all["amin"] = AbsoluteMinimum;
  all["max"] = Maximum;
  all["min"] = Minimum;
  all["argmax"] = ArgMax;
  all["argmin"] = ArgMin;
  all["var"] = Var;
  all["std"] = Std;
  for (const char* name : {"norm", "linalg_vector_norm", "frobenius_norm"}) all[name] = Norm;
  all["cumsum"] = CumulativeSum;
  all["topk"] = TopK;
}

}  // namespace bitplan::onnx_operators
