#include "models/importers/onnx_windows.h"

#include <fmt/format.h>

#include <algorithm>

namespace bitplan::onnx_import {
namespace {

constexpr std::int64_t kLargestWindow = std::int64_t{1} << 20;

}  // namespace

void CheckNumbers(const OnnxCall& call, const Sizes& numbers, std::size_t count, std::int64_t least) {
  if (numbers.size() != count) call.Refuse(fmt::format("states {} numbers for {} dimensions", numbers.size(), count));
  for (const std::int64_t number : numbers) {
    if (number < least || number > kLargestWindow) call.Refuse(fmt::format("states the impossible number {}", number));
  }
}

Window PlainWindow(const OnnxCall& call, const Sizes& kernel) {
  const std::size_t count = kernel.size();
  Window window{.kernel = kernel,
                .stride = call.Ints("strides").value_or(Sizes(count, 1)),
                .dilation = call.Ints("dilations").value_or(Sizes(count, 1)),
                .begin = {},
                .end = {}};
  const Sizes pads = call.Ints("pads").value_or(Sizes(2 * count, 0));
  CheckNumbers(call, window.kernel, count, 1);
  CheckNumbers(call, window.stride, count, 1);
  CheckNumbers(call, window.dilation, count, 1);
  CheckNumbers(call, pads, 2 * count, 0);
  window.begin.assign(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(count));
  window.end.assign(pads.begin() + static_cast<std::ptrdiff_t>(count), pads.end());
  return window;
}

Window WindowOf(const OnnxCall& call, const Sizes& kernel) {
  Window window = PlainWindow(call, kernel);
  const std::string word = call.Text("auto_pad", "NOTSET");
  if (word == "NOTSET") return window;
  const bool upper = word == "SAME_UPPER";
  if (!upper && word != "SAME_LOWER" && word != "VALID") call.Refuse("has an unknown auto_pad");
  const Numbers sizes = call.graph().SizesOf(call.In(0));
  for (std::size_t d = 0; d < kernel.size(); ++d) {
    std::int64_t all = 0;
    if (word != "VALID") {
      const std::int64_t stride = window.stride[d], reach = window.dilation[d] * (kernel[d] - 1) + 1;
      const Number& size = sizes.at(d + 2);
      if (!size.constant() && stride > 1)
        call.Refuse("pads by auto_pad, which depends on a size that the file leaves open");
      const std::int64_t last = stride == 1 ? 1 : size.at(0) - (size.at(0) + stride - 1) / stride * stride + stride;
      all = std::max<std::int64_t>(0, reach - last);
    }
    const std::int64_t less = all / 2, more = all - less;
    window.begin[d] = upper ? less : more;
    window.end[d] = upper ? more : less;
  }
  return window;
}

OnnxValue Padded(const OnnxCall& call, const OnnxValue& x, const Window& window, double with) {
  if (window.even()) return x;
  const std::size_t count = window.begin.size();
  Sizes pads(2 * count);
  Numbers sizes;
  for (std::int64_t d = 0; d < x->rank(); ++d) sizes.emplace_back(x->walks.back().size(d));
  for (std::size_t d = 0; d < count; ++d) {
    pads[2 * (count - 1 - d)] = window.begin[d];
    pads[2 * (count - 1 - d) + 1] = window.end[d];
    sizes[d + 2] = sizes[d + 2].at(0) + window.begin[d] + window.end[d];
  }
  call.graph().CheckSize(sizes);
  return call.Run("constant_pad_nd", {x, NumbersFrom(pads), with});
}

Numbers NumbersFrom(const Sizes& sizes) { return {sizes.begin(), sizes.end()}; }

}  // namespace bitplan::onnx_import
