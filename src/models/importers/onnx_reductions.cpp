// Sums, means and the like over dimensions.
#include <set>

#include "models/importers/onnx_call.h"

namespace bitplan::onnx_import {
namespace {

struct Reduction {
  std::set<std::int64_t> dims;
  bool keep = true;
  [[nodiscard]] Numbers list() const { return {dims.begin(), dims.end()}; }
};

// Axes are an attribute until the operator set `since`.
Reduction ReductionOf(const OnnxCall& call, std::int64_t since) {
  Reduction reduction;
  reduction.keep = call.Int("keepdims", 1) != 0;
  const bool none_is_nothing = call.Int("noop_with_empty_axes", 0) != 0;
  Sizes axes = call.Ints("axes").value_or(Sizes{});
  if (call.opset() >= since && call.Has(1)) {
    const torch::Tensor given = call.ConstantIn(1).to(torch::kInt64).reshape({-1}).contiguous();
    axes.assign(given.data_ptr<std::int64_t>(), given.data_ptr<std::int64_t>() + given.numel());
  }
  const std::int64_t rank = call.In(0)->rank();
  for (const std::int64_t axis : axes) reduction.dims.insert(call.Axis(axis, rank));
  if (!axes.empty() || none_is_nothing) return reduction;
  for (std::int64_t d = 0; d < rank; ++d) reduction.dims.insert(d);
  return reduction;
}

using Reduce = std::function<OnnxValue(const OnnxCall&, const OnnxValue&, const Reduction&)>;

OnnxTranslator Reducing(std::int64_t since, Reduce reduce) {
  return [=](const OnnxCall& call) -> std::vector<OnnxValue> {
    const Reduction reduction = ReductionOf(call, since);
    if (reduction.dims.empty()) return {call.In(0)};
    return {reduce(call, call.In(0), reduction)};
  };
}

// By an operation that takes a list of dimensions.
Reduce ByList(const char* operation) {
  return [operation](const OnnxCall& call, const OnnxValue& x, const Reduction& reduction) {
    return call.Run(operation, {x, reduction.list(), reduction.keep});
  };
}

// One dimension after another, the last first.
OnnxValue ProductOver(const OnnxCall& call, const OnnxValue& x, const Reduction& reduction) {
  OnnxValue result = x;
  for (auto dim = reduction.dims.rbegin(); dim != reduction.dims.rend(); ++dim) {
    result = call.Run("prod", {result, *dim, reduction.keep});
  }
  return result;
}

OnnxTranslator Arg(const char* operation) {
  return [operation](const OnnxCall& call) -> std::vector<OnnxValue> {
    if (call.Int("select_last_index", 0) != 0) call.Refuse("takes the last of equal numbers");
    const std::int64_t axis = call.Axis(call.Int("axis", 0), call.In(0)->rank());
    return {call.Run(operation, {call.In(0), axis, call.Int("keepdims", 1) != 0})};
  };
}

std::vector<OnnxValue> CumSum(const OnnxCall& call) {
  OnnxValue x = call.In(0);
  if (call.ConstantIn(1).numel() != 1) call.Refuse("has more than one axis");
  const std::int64_t axis = call.Axis(call.ConstantIn(1).item<std::int64_t>(), x->rank());
  const bool reverse = call.Int("reverse", 0) != 0, exclusive = call.Int("exclusive", 0) != 0;
  if (reverse) x = call.Run("flip", {x, Numbers{axis}});
  OnnxValue sum = call.Run("cumsum", {x, axis});
  if (exclusive) sum = call.Run("sub", {sum, x});
  return {reverse ? call.Run("flip", {sum, Numbers{axis}}) : sum};
}

}  // namespace

void AddReductions(OnnxTranslators& all) {
  constexpr std::int64_t kSumAxes = 13, kOtherAxes = 18;
  const Reduce sum = ByList("sum");
  all["ReduceSum"] = Reducing(kSumAxes, sum);
  all["ReduceMean"] = Reducing(kOtherAxes, ByList("mean"));
  all["ReduceMax"] = Reducing(kOtherAxes, ByList("amax"));
  all["ReduceMin"] = Reducing(kOtherAxes, ByList("amin"));
  all["ReduceLogSumExp"] = Reducing(kOtherAxes, ByList("logsumexp"));
  all["ReduceProd"] = Reducing(kOtherAxes, ProductOver);
  all["ReduceL1"] = Reducing(kOtherAxes, [sum](const OnnxCall& call, const OnnxValue& x, const Reduction& over) {
    return sum(call, call.Run("abs", {x}), over);
  });
  all["ReduceL2"] = Reducing(kOtherAxes, [sum](const OnnxCall& call, const OnnxValue& x, const Reduction& over) {
    return call.Run("sqrt", {sum(call, call.Run("mul", {x, x}), over)});
  });
  all["ReduceSumSquare"] = Reducing(kOtherAxes, [sum](const OnnxCall& call, const OnnxValue& x, const Reduction& over) {
    return sum(call, call.Run("mul", {x, x}), over);
  });
  all["ReduceLogSum"] = Reducing(kOtherAxes, [sum](const OnnxCall& call, const OnnxValue& x, const Reduction& over) {
    return call.Run("log", {sum(call, x, over)});
  });
  all["ArgMax"] = Arg("argmax");
  all["ArgMin"] = Arg("argmin");
  all["CumSum"] = CumSum;
}

}  // namespace bitplan::onnx_import
