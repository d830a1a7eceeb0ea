// Layers with weights. A weight stays as the file has it: an attribute that the operation reads, turned by aten::t at
// most, so that a plan finds it.
#include <algorithm>
#include <numeric>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

const char* ByDims(std::int64_t dims, const char* one, const char* two, const char* three) {
  return dims == 1 ? one : dims == 2 ? two : three;
}

// [out, in / groups, k...] or, transposed, [in, out / groups, k...], with at least one number.
void CheckConvolution(const OnnxCall& call, std::int64_t groups) {
  const OnnxValue& x = call.In(0);
  const OnnxValue& weight = call.In(1);
  if (x->rank() < 3 || x->rank() > 5) call.Refuse("needs an input of 3, 4 or 5 dimensions");
  if (weight->rank() != x->rank()) call.Refuse("has a weight of another number of dimensions than its input");
  if (weight->tensor().numel() == 0) call.Refuse("has a weight without numbers");
  if (groups < 1 || weight->tensor().size(0) % groups != 0) call.Refuse("has an impossible number of groups");
  if (!x->tensor().is_floating_point() || !weight->tensor().is_floating_point()) call.Refuse("multiplies integers");
}

Argument BiasOrNone(const OnnxCall& call, std::size_t input) {
  return call.Has(input) ? Argument(call.In(input)) : Argument(std::nullopt);
}

Sizes KernelOf(const OnnxCall& call) {
  const torch::Tensor& weight = call.In(1)->tensor();
  Sizes kernel(weight.sizes().begin() + 2, weight.sizes().end());
  const auto stated = call.Ints("kernel_shape");
  if (stated && *stated != kernel) call.Refuse("states another kernel_shape than its weight has");
  return kernel;
}

std::vector<OnnxValue> Conv(const OnnxCall& call) {
  const std::int64_t groups = call.Int("group", 1);
  CheckConvolution(call, groups);
  const Window window = WindowOf(call, KernelOf(call));
  call.NameParts(call.In(1), call.Has(2) ? call.In(2) : nullptr);
  Numbers sizes = {call.In(0)->walks.back().size(0), call.In(1)->tensor().size(0)};
  for (std::size_t d = 0; d < window.kernel.size(); ++d) {
    const std::int64_t size = call.In(0)->walks.back().size(static_cast<std::int64_t>(d) + 2);
    sizes.emplace_back((size + window.begin[d] + window.end[d]) / window.stride[d] + 1);
  }
  call.graph().CheckSize(sizes);
  constexpr double kMostWork = 1e12;  // multiplications
  double work = static_cast<double>(call.In(1)->tensor().numel()) / static_cast<double>(call.In(1)->tensor().size(0));
  for (const Number& size : sizes) work *= static_cast<double>(size.at(0));
  if (work > kMostWork) call.Refuse("takes more multiplications than any layer of a network");
  const OnnxValue x = Padded(call, call.In(0), window, 0.0);
  const std::int64_t dims = call.In(0)->rank() - 2;
  return {call.Run(ByDims(dims, "conv1d", "conv2d", "conv3d"),
                   {x, call.In(1), BiasOrNone(call, 2), NumbersFrom(window.stride), NumbersFrom(window.padding()),
                    NumbersFrom(window.dilation), groups})};
}

std::vector<OnnxValue> ConvTranspose(const OnnxCall& call) {
  const std::int64_t groups = call.Int("group", 1), dims = call.In(0)->rank() - 2;
  CheckConvolution(call, groups);
  const Sizes kernel = KernelOf(call);
  const auto count = static_cast<std::size_t>(dims);
  Window window = PlainWindow(call, kernel);
  Sizes output_padding = call.Ints("output_padding").value_or(Sizes(count, 0));
  const auto output_shape = call.Ints("output_shape");
  const std::string auto_pad = call.Text("auto_pad", "NOTSET");
  CheckNumbers(call, output_padding, count, 0);
  const bool by_shape = output_shape || auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER";
  if (output_shape && output_shape->size() < count) call.Refuse("has an output_shape of another length");
  std::vector<Number> sizes = {1, 1};
  const Numbers inputs = call.graph().SizesOf(call.In(0));
  for (std::size_t d = 0; d < count; ++d) {
    const Number& in = inputs[d + 2];
    const std::int64_t reach = window.dilation[d] * (kernel[d] - 1) + 1;
    if (by_shape) {
      if (output_shape && !in.constant()) call.Refuse("has an output_shape for an input of no fixed size");
      const std::int64_t all = output_shape ? window.stride[d] * (in.at(0) - 1) + output_padding[d] + reach -
                                                  output_shape->at(output_shape->size() - count + d)
                                            : output_padding[d] + reach - window.stride[d];
      const std::int64_t less = std::max<std::int64_t>(0, all) / 2, more = std::max<std::int64_t>(0, all) - less;
      if (all < 0) output_padding[d] -= all;
      // The odd one of SAME_UPPER goes behind, of everything else before.
      window.begin[d] = auto_pad == "SAME_UPPER" ? less : more;
      window.end[d] = auto_pad == "SAME_UPPER" ? more : less;
    } else if (auto_pad != "NOTSET" && auto_pad != "VALID") {
      call.Refuse("has an unknown auto_pad");
    }
    sizes.emplace_back(window.stride[d] * (in.at(call.graph().walks() - 1) - 1) + reach + output_padding[d]);
  }
  sizes[0] = call.In(0)->walks.back().size(0);
  sizes[1] = call.In(1)->tensor().size(1) * groups;
  call.graph().CheckSize(sizes);
  call.NameParts(call.In(1), call.Has(2) ? call.In(2) : nullptr);
  // What is cut off differs before and behind: cut off the smaller part here, and the rest afterwards.
  Sizes both(count), rest(2 * count, 0);
  bool uneven = false;
  for (std::size_t d = 0; d < count; ++d) {
    both[d] = std::min(window.begin[d], window.end[d]);
    rest[2 * (count - 1 - d)] = both[d] - window.begin[d];
    rest[2 * (count - 1 - d) + 1] = both[d] - window.end[d];
    uneven = uneven || window.begin[d] != window.end[d];
  }
  OnnxValue y = call.Run(ByDims(dims, "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
                         {call.In(0), call.In(1), BiasOrNone(call, 2), NumbersFrom(window.stride), NumbersFrom(both),
                          NumbersFrom(output_padding), groups, NumbersFrom(window.dilation)});
  if (uneven) y = call.Run("constant_pad_nd", {y, NumbersFrom(rest), 0.0});
  return {y};
}

// x @ weight + bias, the weight [in, out] as an attribute, or the turned view of one that is [out, in].
OnnxValue Linear(const OnnxCall& call, const OnnxValue& x, const OnnxValue& weight, bool rows,
                 const std::optional<OnnxValue>& bias) {
  call.NameParts(weight, bias.value_or(nullptr));
  const OnnxValue by_rows = rows ? weight : call.graph().Turned(weight);
  return call.Run("linear", {x, by_rows, bias ? Argument(*bias) : Argument(std::nullopt)});
}

std::vector<OnnxValue> MatMul(const OnnxCall& call) {
  const OnnxValue &a = call.In(0), &b = call.In(1);
  if (!a->tensor().is_floating_point() || !b->tensor().is_floating_point()) call.Refuse("multiplies integers");
  if (call.Has(2)) return {Linear(call, a, b, /*rows=*/false, call.In(2))};
  call.NameParts(b, nullptr);
  return {call.Run("matmul", {a, b})};
}

OnnxValue Times(const OnnxCall& call, const OnnxValue& value, double factor) {
  return factor == 1.0 ? value : call.Run("mul", {value, factor});
}

std::vector<OnnxValue> Gemm(const OnnxCall& call) {
  const bool turn_a = call.Int("transA", 0) != 0, turn_b = call.Int("transB", 0) != 0;
  const double alpha = call.Real("alpha", 1.0), beta = call.Real("beta", 1.0);
  OnnxValue a = call.In(0);
  const OnnxValue& b = call.In(1);
  if (a->rank() != 2 || b->rank() != 2) call.Refuse("needs two matrices");
  if (!a->tensor().is_floating_point() || !b->tensor().is_floating_point()) call.Refuse("multiplies integers");
  if (turn_a) a = call.Run("t", {a});
  a = Times(call, a, alpha);
  const bool has_bias = call.Has(2) && beta != 0.0;
  if (b->constant() || !has_bias) {
    const std::int64_t out = b->tensor().size(turn_b ? 0 : 1);
    const bool fits = has_bias && call.In(2)->rank() == 1 && call.In(2)->tensor().size(0) == out;
    std::optional<OnnxValue> bias;
    if (fits) bias = Times(call, call.In(2), beta);
    const OnnxValue product = Linear(call, a, b, turn_b, bias);
    return {has_bias && !fits ? call.Run("add", {product, Times(call, call.In(2), beta)}) : product};
  }
  const OnnxValue product = call.Run("matmul", {a, turn_b ? call.Run("t", {b}) : b});
  return {call.Run("add", {product, Times(call, call.In(2), beta)})};
}

// A bound on what the operands make together: a number for every combination of the letters of the result.
void CheckEinsum(const OnnxCall& call, const std::string& equation) {
  std::map<char, std::int64_t> sizes;
  std::size_t operand = 0, d = 0;
  const std::size_t arrow = equation.find("->");
  for (const char c : equation.substr(0, arrow)) {
    if (c == ' ') continue;
    if (c == ',') {
      ++operand;
      d = 0;
      continue;
    }
    if (c == '.') call.Refuse("has dots in its equation, which bitplan does not read");
    if (operand >= call.inputs() || d >= static_cast<std::size_t>(call.In(operand)->rank())) {
      call.Refuse("has an equation that does not fit its inputs");
    }
    sizes[c] = call.In(operand)->walks.back().size(static_cast<std::int64_t>(d++));
  }
  Numbers result;
  for (const auto& [letter, size] : sizes) {
    const bool kept = arrow == std::string::npos || equation.find(letter, arrow + 2) != std::string::npos;
    if (kept) result.emplace_back(size);
  }
  call.graph().CheckSize(result);
}

std::vector<OnnxValue> Einsum(const OnnxCall& call) {
  std::vector<OnnxValue> operands;
  for (std::size_t i = 0; i < call.inputs(); ++i) operands.push_back(call.In(i));
  if (operands.empty() || operands.size() > 2) call.Refuse("has more than two operands");
  const std::string equation = call.Text("equation", "");
  CheckEinsum(call, equation);
  return {call.Run("einsum", {equation.c_str(), operands})};
}

}  // namespace

void AddLayers(OnnxTranslators& all) {
  all["Conv"] = Conv;
  all["ConvTranspose"] = ConvTranspose;
  all["Gemm"] = Gemm;
  all["MatMul"] = MatMul;
  all["Einsum"] = Einsum;
}

}  // namespace bitplan::onnx_import
