// Pools, padding and resizing. PyTorch and ONNX round the number of windows up in different ways, so windows are always
// rounded down here, with as much padding at the end as the last one needs.
#include <algorithm>

#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

struct PoolForm {
  Numbers kernel, stride, padding, dilation, extra;  // extra: padding at the end for windows that are rounded up
};

Numbers BothEnds(const Numbers& begin, const Numbers& end) {
  Numbers all = begin;
  all.insert(all.end(), end.begin(), end.end());
  return all;
}

PoolForm PoolFormOf(const OnnxCall& call, std::size_t dims, bool dilated) {
  PoolForm form{.kernel = call.Ints("kernel_size", dims),
                .stride = call.Ints("stride", dims),
                .padding = call.Ints("padding", dims),
                .dilation = dilated ? call.Ints("dilation", dims) : Numbers(dims, 1),
                .extra = Numbers(dims, 0)};
  if (form.stride.empty()) form.stride = form.kernel;
  const torch::Tensor input = call.Tensor(0), output = call.Out();
  if (input.dim() != static_cast<std::int64_t>(dims) + 2) call.Refuse("has an input without a batch");
  for (std::size_t d = 0; d < dims; ++d) {
    const auto at = static_cast<std::int64_t>(d) + 2;
    const std::int64_t reach = (output.size(at) - 1) * form.stride[d] + form.dilation[d] * (form.kernel[d] - 1) + 1;
    form.extra[d] = std::max<std::int64_t>(0, reach - input.size(at) - 2 * form.padding[d]);
  }
  return form;
}

template <std::size_t kDims>
Names MaxPool(const OnnxCall& call) {
  const PoolForm form = PoolFormOf(call, kDims, true);
  Numbers end = form.padding;
  for (std::size_t d = 0; d < kDims; ++d) end[d] += form.extra[d];
  return {call.graph().Add("MaxPool", {call.Name(0)},
                           {{"kernel_shape", form.kernel},
                            {"strides", form.stride},
                            {"dilations", form.dilation},
                            {"pads", BothEnds(form.padding, end)}})};
}

template <std::size_t kDims>
Names AveragePool(const OnnxCall& call) {
  if (call.Has("divisor_override")) call.Refuse("has a divisor of its own");
  PoolForm form = PoolFormOf(call, kDims, false);
  std::string input = call.Name(0);
  // Padding counts where the operator says so, what is only there to fill the last window never does.
  if (call.Flag("count_include_pad", true)) {
    const bool padded = std::any_of(form.padding.begin(), form.padding.end(), [](std::int64_t pad) { return pad > 0; });
    if (padded) {
      const Numbers own = BothEnds(Numbers(2, 0), form.padding);
      input = call.graph().Add("Pad", {input, call.graph().Ints(BothEnds(own, own))});
    }
    form.padding.assign(kDims, 0);
  }
  Numbers end = form.padding;
  for (std::size_t d = 0; d < kDims; ++d) end[d] += form.extra[d];
  return {call.graph().Add("AveragePool", {input},
                           {{"kernel_shape", form.kernel},
                            {"strides", form.stride},
                            {"pads", BothEnds(form.padding, end)},
                            {"count_include_pad", std::int64_t{0}}})};
}

// Output i is the mean of inputs floor(i * in / out) .. ceil((i + 1) * in / out) - 1: a row of this matrix.
torch::Tensor MeansOf(std::int64_t in, std::int64_t out) {
  torch::Tensor means = torch::zeros({out, in});
  for (std::int64_t i = 0; i < out; ++i) {
    const std::int64_t begin = i * in / out, end = ((i + 1) * in + out - 1) / out;
    means[i].slice(0, begin, end).fill_(1.0 / static_cast<double>(end - begin));
  }
  return means;
}

template <std::size_t kDims>
Names AdaptiveAverage(const OnnxCall& call) {
  const torch::Tensor input = call.Tensor(0), output = call.Out();
  if (input.dim() != static_cast<std::int64_t>(kDims) + 2) call.Refuse("has an input without a batch");
  Numbers windows, axes;
  bool even = true, all_one = true;
  for (std::int64_t d = 2; d < input.dim(); ++d) {
    even = even && input.size(d) % output.size(d) == 0;
    all_one = all_one && output.size(d) == 1;
    windows.push_back(input.size(d) / output.size(d));
    axes.push_back(d);
  }
  OnnxGraph& graph = call.graph();
  if (all_one) return {graph.Add("GlobalAveragePool", {call.Name(0)})};
  if (even) return {graph.Add("AveragePool", {call.Name(0)}, {{"kernel_shape", windows}, {"strides", windows}})};
  // Windows of different sizes: one dimension after another, as the last one, times a matrix.
  std::string value = call.Name(0);
  for (const std::int64_t d : axes) {
    Numbers swapped;
    for (std::int64_t other = 0; other < input.dim(); ++other) swapped.push_back(other);
    std::swap(swapped[static_cast<std::size_t>(d)], swapped.back());
    const bool last = d + 1 == input.dim();
    if (!last) value = graph.Add("Transpose", {value}, {{"perm", swapped}});
    value = graph.Add("MatMul", {value, graph.Constant(MeansOf(input.size(d), output.size(d)).t())});
    if (!last) value = graph.Add("Transpose", {value}, {{"perm", swapped}});
  }
  return {value};
}

template <std::size_t kDims>
Names AdaptiveMax(const OnnxCall& call) {
  const torch::Tensor input = call.Tensor(0), output = call.Out();
  Numbers windows;
  for (std::size_t d = 0; d < kDims; ++d) {
    const auto at = static_cast<std::int64_t>(d) + input.dim() - static_cast<std::int64_t>(kDims);
    if (input.size(at) % output.size(at) != 0) call.Refuse("has windows of different sizes");
    windows.push_back(input.size(at) / output.size(at));
  }
  return {call.graph().Add("MaxPool", {call.Name(0)}, {{"kernel_shape", windows}, {"strides", windows}})};
}

// `pads`: before and after, beginning with the last dimension.
Names Padding(const OnnxCall& call, const Numbers& pads, const std::string& mode, double value) {
  const std::int64_t dims = call.Dims(0);
  Numbers begin(static_cast<std::size_t>(dims), 0), end = begin;
  for (std::size_t i = 0; i + 1 < pads.size(); i += 2) {
    const auto at = static_cast<std::size_t>(dims) - 1 - i / 2;
    begin[at] = pads[i];
    end[at] = pads[i + 1];
  }
  Names inputs = {call.Name(0), call.graph().Ints(BothEnds(begin, end))};
  if (mode == "constant") inputs.push_back(call.graph().Number(value, call.Out().scalar_type()));
  return {call.graph().Add("Pad", inputs, {{"mode", mode}})};
}

Names ConstantPad(const OnnxCall& call) { return Padding(call, call.Ints("pad"), "constant", call.Real("value", 0.0)); }
Names ReflectionPad(const OnnxCall& call) { return Padding(call, call.Ints("padding"), "reflect", 0.0); }
Names ReplicationPad(const OnnxCall& call) { return Padding(call, call.Ints("padding"), "edge", 0.0); }
Names AnyPad(const OnnxCall& call) {
  static const std::map<std::string, std::string> modes = {
      {"constant", "constant"}, {"reflect", "reflect"}, {"replicate", "edge"}, {"circular", "wrap"}};
  const std::string mode = call.Has("mode") ? call.Word("mode") : "constant";
  if (!modes.contains(mode)) call.Refuse("pads in a way that ONNX does not know");
  return Padding(call, call.Ints("pad"), modes.at(mode), call.Real("value", 0.0));
}

Names Resize(const OnnxCall& call, const char* mode, const std::string& coordinates) {
  const torch::Tensor input = call.Tensor(0), output = call.Out();
  // Factors that a user gave count, not those that follow from the rounded sizes.
  std::vector<float> factors = {1.0F, 1.0F};
  std::vector<double> given;
  if (call.Has("scale_factors")) given = call.Value("scale_factors").toDoubleVector();
  for (std::int64_t d = 2; d < input.dim(); ++d) {
    const auto own = static_cast<std::size_t>(d - 2);
    factors.push_back(own < given.size() ? static_cast<float>(given[own])
                                         : static_cast<float>(output.size(d)) / static_cast<float>(input.size(d)));
  }
  return {call.graph().Add("Resize", {call.Name(0), "", call.graph().Constant(torch::tensor(factors))},
                           {{"mode", std::string(mode)},
                            {"coordinate_transformation_mode", coordinates},
                            {"nearest_mode", std::string("floor")}})};
}

Names Nearest(const OnnxCall& call) { return Resize(call, "nearest", "asymmetric"); }
Names Linearly(const OnnxCall& call) {
  return Resize(call, "linear", call.Flag("align_corners") ? "align_corners" : "pytorch_half_pixel");
}

Names PixelShuffle(const OnnxCall& call) {
  return {call.graph().Add("DepthToSpace", {call.Name(0)},
                           {{"blocksize", call.Int("upscale_factor")}, {"mode", std::string("CRD")}})};
}

}  // namespace

void AddPools(OnnxTranslators& all) {
  all["max_pool1d"] = all["max_pool1d_with_indices"] = MaxPool<1>;
  all["max_pool2d"] = all["max_pool2d_with_indices"] = MaxPool<2>;
  all["max_pool3d"] = all["max_pool3d_with_indices"] = MaxPool<3>;
  all["avg_pool1d"] = AveragePool<1>;
  all["avg_pool2d"] = AveragePool<2>;
  all["avg_pool3d"] = AveragePool<3>;
  all["adaptive_avg_pool1d"] = AdaptiveAverage<1>;
  all["adaptive_avg_pool2d"] = all["_adaptive_avg_pool2d"] = AdaptiveAverage<2>;
  all["adaptive_avg_pool3d"] = all["_adaptive_avg_pool3d"] = AdaptiveAverage<3>;
  all["adaptive_max_pool1d"] = AdaptiveMax<1>;
  all["adaptive_max_pool2d"] = AdaptiveMax<2>;
  all["adaptive_max_pool3d"] = AdaptiveMax<3>;
  all["constant_pad_nd"] = ConstantPad;
  all["pad"] = AnyPad;
  for (const char* name : {"reflection_pad1d", "reflection_pad2d", "reflection_pad3d"}) all[name] = ReflectionPad;
  for (const char* name : {"replication_pad1d", "replication_pad2d", "replication_pad3d"}) all[name] = ReplicationPad;
  for (const char* name : {"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"}) all[name] = Nearest;
  for (const char* name : {"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"}) all[name] = Linearly;
  all["pixel_shuffle"] = PixelShuffle;
}

}  // namespace bitplan::onnx_operators
