// Pools. LibTorch pads by half a window at most and the same on both sides; every other padding is made before.
#include <algorithm>
#include <limits>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

const char* PoolName(std::int64_t dims, const char* one, const char* two, const char* three) {
  return dims == 1 ? one : dims == 2 ? two : three;
}

Window PoolWindow(const OnnxCall& call) {
  const std::int64_t rank = call.In(0)->rank();
  if (rank < 3 || rank > 5) call.Refuse("needs an input of 3, 4 or 5 dimensions");
  const auto kernel = call.Ints("kernel_shape");
  if (!kernel || kernel->size() != static_cast<std::size_t>(rank - 2))
    call.Refuse("has a kernel_shape of another length");
  return WindowOf(call, *kernel);
}

bool NeedsPadding(const Window& window) {
  bool outside = !window.even();
  for (std::size_t d = 0; d < window.kernel.size(); ++d) outside = outside || 2 * window.begin[d] > window.kernel[d];
  return outside;
}

// The same window over an input that is padded already.
OnnxValue PaddedForPool(const OnnxCall& call, const OnnxValue& x, Window& window, double with) {
  if (!NeedsPadding(window)) return x;
  OnnxValue padded;
  if (window.even()) {
    Sizes pads;
    Numbers sizes;
    for (std::int64_t d = 0; d < x->rank(); ++d) sizes.emplace_back(x->walks.back().size(d));
    for (std::size_t d = window.begin.size(); d-- > 0;) {
      pads.insert(pads.end(), 2, window.begin[d]);
      sizes[d + 2] = sizes[d + 2].at(0) + 2 * window.begin[d];
    }
    call.graph().CheckSize(sizes);
    padded = call.Run("constant_pad_nd", {x, NumbersFrom(pads), with});
  } else {
    padded = Padded(call, x, window, with);
  }
  window.begin.assign(window.begin.size(), 0);
  window.end = window.begin;
  return padded;
}

std::vector<OnnxValue> MaxPool(const OnnxCall& call) {
  call.Ignore("storage_order");
  Window window = PoolWindow(call);
  const bool ceil = call.Int("ceil_mode", 0) != 0;
  const std::int64_t dims = call.In(0)->rank() - 2;
  const OnnxValue x = PaddedForPool(call, call.In(0), window, -std::numeric_limits<double>::infinity());
  return {call.Run(PoolName(dims, "max_pool1d", "max_pool2d", "max_pool3d"),
                   {x, NumbersFrom(window.kernel), NumbersFrom(window.stride), NumbersFrom(window.begin),
                    NumbersFrom(window.dilation), ceil})};
}

std::vector<OnnxValue> AveragePool(const OnnxCall& call) {
  Window window = PoolWindow(call);
  const bool ceil = call.Int("ceil_mode", 0) != 0, count_padding = call.Int("count_include_pad", 0) != 0;
  const std::int64_t dims = call.In(0)->rank() - 2;
  if (std::any_of(window.dilation.begin(), window.dilation.end(), [](std::int64_t d) { return d != 1; })) {
    call.Refuse("has dilations, which bitplan does not translate for averages");
  }
  const char* const operation = PoolName(dims, "avg_pool1d", "avg_pool2d", "avg_pool3d");
  const auto pool = [&](const OnnxValue& x, const Window& over) {
    return call.Run(operation, {x, NumbersFrom(over.kernel), NumbersFrom(over.stride), NumbersFrom(over.begin), ceil,
                                count_padding});
  };
  if (!NeedsPadding(window)) return {pool(call.In(0), window)};
  Window inside = window;
  const OnnxValue mean = pool(PaddedForPool(call, call.In(0), inside, 0.0), inside);
  if (count_padding) return {mean};
  // Over the share of the window that is not padding.
  inside = window;
  const OnnxValue ones = call.Run("ones_like", {call.Run("slice", {call.In(0), 1, 0, 1, 1})});
  return {call.Run("div", {mean, pool(PaddedForPool(call, ones, inside, 0.0), inside)})};
}

Numbers AllPlaces(const OnnxCall& call) {
  if (call.In(0)->rank() < 3) call.Refuse("needs an input of three dimensions or more");
  Numbers dims;
  for (std::int64_t d = 2; d < call.In(0)->rank(); ++d) dims.emplace_back(d);
  return dims;
}

std::vector<OnnxValue> GlobalAveragePool(const OnnxCall& call) {
  if (call.In(0)->rank() == 4) return {call.Run("adaptive_avg_pool2d", {call.In(0), Numbers{1, 1}})};
  return {call.Run("mean", {call.In(0), AllPlaces(call), true})};
}

std::vector<OnnxValue> GlobalMaxPool(const OnnxCall& call) {
  return {call.Run("amax", {call.In(0), AllPlaces(call), true})};
}

// x / (bias + alpha / size * sum of the squares of `size` neighbouring channels)^beta
std::vector<OnnxValue> LocalResponse(const OnnxCall& call) {
  const std::int64_t size = call.Int("size", 0);
  const OnnxValue& x = call.In(0);
  if (x->rank() != 4 || size < 1 || size > x->tensor().size(1) * 2)
    call.Refuse("needs an input of 4 dimensions and a size");
  const OnnxValue squares = call.Run("unsqueeze", {call.Run("mul", {x, x}), 1});
  const OnnxValue padded = call.Run("constant_pad_nd", {squares, Numbers{0, 0, 0, 0, (size - 1) / 2, size / 2}, 0.0});
  const OnnxValue mean = call.Run("avg_pool3d", {padded, Numbers{size, 1, 1}, Numbers{1, 1, 1}});
  const OnnxValue line = call.Run(
      "add", {call.Run("mul", {call.Run("squeeze", {mean, 1}), call.Real("alpha", 1e-4)}), call.Real("bias", 1.0)});
  return {call.Run("div", {x, call.Run("pow", {line, call.Real("beta", 0.75)})})};
}

}  // namespace

void AddPools(OnnxTranslators& all) {
  all["MaxPool"] = MaxPool;
  all["AveragePool"] = AveragePool;
  all["GlobalAveragePool"] = GlobalAveragePool;
  all["GlobalMaxPool"] = GlobalMaxPool;
  all["LRN"] = LocalResponse;
}

}  // namespace bitplan::onnx_import
