// Operators that put values together, take parts of them, or rearrange their parts.
#include <algorithm>
#include <limits>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_tensor.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

constexpr std::int64_t kMostPadding = std::int64_t{1} << 24, kLongestStep = std::int64_t{1} << 31;

std::vector<OnnxValue> Tile(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const Numbers times = call.graph().NumbersIn(call.In(1));
  if (times.size() != static_cast<std::size_t>(x->rank())) call.Refuse("repeats another number of dimensions");
  for (std::size_t w = 0; w < call.graph().walks(); ++w) {
    Numbers sizes;
    for (std::size_t d = 0; d < times.size(); ++d) {
      if (times[d].at(w) < 0) call.Refuse("repeats less than no times");
      sizes.emplace_back(x->walks[w].size(static_cast<std::int64_t>(d)));
      sizes.emplace_back(times[d].at(w));
    }
    call.graph().CheckSize(sizes);
  }
  return {call.Run("repeat", {x, times})};
}

// Inputs that the file fixes to its own batch are there for every image.
std::vector<OnnxValue> Concat(const OnnxCall& call) {
  std::vector<OnnxValue> parts;
  for (std::size_t i = 0; i < call.inputs(); ++i) parts.push_back(call.In(i));
  const std::int64_t rank = call.In(0)->rank(), axis = call.Axis(call.Int("axis", 1), rank);
  std::int64_t batch_dim = -1, count = 0;
  OnnxValue varies;
  for (const OnnxValue& part : parts) {
    if (part->rank() != rank) call.Refuse("joins values of different numbers of dimensions");
    if (part->constant() || call.graph().fixed_batch() == 0) continue;
    const std::int64_t dim = call.graph().BatchDim(part);
    if (dim >= 0 && dim != axis) {
      batch_dim = dim;
      varies = part;
    }
  }
  if (batch_dim >= 0) {
    for (OnnxValue& part : parts) {
      if (call.graph().BatchDim(part) == batch_dim || part->tensor().size(batch_dim) != 1) continue;
      Numbers sizes(static_cast<std::size_t>(rank), Number(-1));
      sizes[static_cast<std::size_t>(batch_dim)] = call.graph().SizesOf(varies)[static_cast<std::size_t>(batch_dim)];
      part = call.Run("expand", {part, sizes});
    }
  }
  for (const OnnxValue& part : parts) count += part->walks.back().numel();
  call.graph().CheckSize({count});
  return {call.Run("cat", {parts, axis})};
}

std::vector<OnnxValue> Split(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t axis = call.Axis(call.Int("axis", 0), x->rank());
  const auto outputs = static_cast<std::int64_t>(call.node().outputs.size());
  Sizes lengths;
  const std::optional<Sizes> stated = AxesOf(call, 13);  // its second input, as axes of others
  const std::int64_t parts = call.Int("num_outputs", outputs);
  const std::optional<Sizes> attribute = call.Ints("split");
  if (stated) lengths = *stated;
  if (attribute) lengths = *attribute;
  if (lengths.empty()) {
    const Number size = call.graph().SizesOf(x)[static_cast<std::size_t>(axis)];
    if (!size.constant()) call.Refuse("splits a size that is not fixed");
    if (parts != outputs || parts < 1) call.Refuse("has not as many outputs as parts");
    const std::int64_t each = (size.at(0) + parts - 1) / parts;
    for (std::int64_t begin = 0; begin < size.at(0); begin += std::max<std::int64_t>(1, each)) {
      lengths.push_back(std::min(each, size.at(0) - begin));
    }
  }
  if (static_cast<std::int64_t>(lengths.size()) != outputs) call.Refuse("has not as many outputs as parts");
  std::vector<OnnxValue> made;
  std::int64_t begin = 0;
  for (const std::int64_t length : lengths) {
    made.push_back(call.Run("narrow", {x, axis, begin, length}));
    begin += length;
  }
  if (begin != x->tensor().size(axis)) call.Refuse("has parts that are not the whole");
  return made;
}

// One dimension after another; backwards by the places themselves, which LibTorch has no slice for.
std::vector<OnnxValue> Slice(const OnnxCall& call) {
  OnnxValue x = call.In(0);
  OnnxBuilder& graph = call.graph();
  Numbers starts, ends;
  Sizes axes, steps;
  const auto whole = [&](std::size_t input) {
    const torch::Tensor values = call.ConstantIn(input).to(torch::kInt64).reshape({-1}).contiguous();
    return Sizes(values.data_ptr<std::int64_t>(), values.data_ptr<std::int64_t>() + values.numel());
  };
  if (call.opset() < 10) {
    starts = NumbersFrom(call.Ints("starts").value_or(Sizes{}));
    ends = NumbersFrom(call.Ints("ends").value_or(Sizes{}));
    axes = call.Ints("axes").value_or(Sizes{});
  } else {
    starts = graph.NumbersIn(call.In(1));
    ends = graph.NumbersIn(call.In(2));
    if (call.Has(3)) axes = whole(3);
    if (call.Has(4)) steps = whole(4);
  }
  for (std::size_t i = axes.size(); i < starts.size() && axes.size() == i; ++i)
    axes.push_back(static_cast<std::int64_t>(i));
  steps.resize(std::max(steps.size(), starts.size()), 1);
  if (starts.size() != ends.size() || starts.size() != axes.size()) call.Refuse("has not as many starts as ends");
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::int64_t axis = call.Axis(axes[i], x->rank());
    if (steps[i] > 0) {
      x = call.Run("slice", {x, axis, starts[i], ends[i], std::min(steps[i], kLongestStep)});
      continue;
    }
    const Number size = graph.SizesOf(x)[static_cast<std::size_t>(axis)];
    if (steps[i] == 0 || !size.constant() || !starts[i].constant() || !ends[i].constant()) {
      call.Refuse("goes backwards over a size that is not fixed");
    }
    const std::int64_t length = size.at(0);
    const auto from_front = [&](std::int64_t at) { return at < 0 ? (at < -length ? -1 : at + length) : at; };
    Sizes places;
    const std::int64_t first = std::min(from_front(starts[i].at(0)), length - 1);
    const std::int64_t last = std::max<std::int64_t>(from_front(ends[i].at(0)), -1);
    const std::int64_t step = std::max(steps[i], -length - 1);
    for (std::int64_t at = first; at > last && at >= 0; at += step) places.push_back(at);
    const OnnxValue order = graph.Constant(torch::tensor(places, torch::kInt64), "places");
    x = call.Run("index_select", {x, axis, order});
  }
  return {x};
}

std::vector<OnnxValue> Pad(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::string mode = call.Text("mode", "constant");
  const bool by_input = call.opset() >= 11;
  double value = call.Real("value", 0.0);
  const auto rank = static_cast<std::size_t>(x->rank());
  Sizes stated;
  if (by_input) {
    for (const Number& pad : call.graph().NumbersIn(call.In(1))) {
      if (!pad.constant()) call.Refuse("pads by a number that is not fixed");
      stated.push_back(pad.at(0));
    }
    if (call.Has(2)) {
      if (call.ConstantIn(2).numel() != 1) call.Refuse("pads with more than one number");
      value = call.ConstantIn(2).to(torch::kDouble).item<double>();
    }
  } else {
    stated = call.Ints("pads").value_or(Sizes{});
  }
  Sizes axes;
  if (call.Has(3)) {
    for (const Number& axis : call.graph().NumbersIn(call.In(3))) axes.push_back(call.Axis(axis.at(0), x->rank()));
  } else {
    for (std::int64_t d = 0; d < x->rank(); ++d) axes.push_back(d);
  }
  if (stated.size() != 2 * axes.size()) call.Refuse("has not two pads for each dimension");
  Sizes pads(2 * rank, 0);  // last dimension first, before and behind
  for (std::size_t i = 0; i < axes.size(); ++i) {
    for (const std::size_t side : {0, 1}) {
      const std::int64_t pad = stated[i + side * axes.size()];
      if (pad > kMostPadding || pad < -kMostPadding) call.Refuse("pads by too many numbers");
      pads[2 * (rank - 1 - static_cast<std::size_t>(axes[i])) + side] = pad;
    }
  }
  Numbers sizes;
  for (std::size_t d = 0; d < rank; ++d) {
    const std::int64_t size = x->walks.back().size(static_cast<std::int64_t>(d));
    sizes.emplace_back(std::max<std::int64_t>(0, size + pads[2 * (rank - 1 - d)] + pads[2 * (rank - 1 - d) + 1]));
  }
  call.graph().CheckSize(sizes);
  while (pads.size() > 2 && pads.back() == 0 && pads[pads.size() - 2] == 0) pads.resize(pads.size() - 2);
  if (mode == "constant") {
    if (x->tensor().is_floating_point()) return {call.Run("constant_pad_nd", {x, NumbersFrom(pads), value})};
    return {call.Run("constant_pad_nd", {x, NumbersFrom(pads), static_cast<std::int64_t>(value)})};
  }
  if (mode != "reflect" && mode != "edge") call.Refuse("pads by the unknown mode " + Shown(mode));
  const std::size_t dims = pads.size() / 2;
  if (dims > 3 || rank < dims + 1) call.Refuse("reflects over more dimensions than bitplan translates");
  // LibTorch pads the last dimensions of a value that has two more.
  OnnxValue wide = x;
  for (std::size_t d = rank; d < dims + 2; ++d) wide = call.Run("unsqueeze", {wide, 0});
  for (std::size_t d = dims + 2; d < rank; ++d) wide = call.Run("flatten", {wide, 0, 1});
  static const char* const reflections[] = {"reflection_pad1d", "reflection_pad2d", "reflection_pad3d"};
  static const char* const edges[] = {"replication_pad1d", "replication_pad2d", "replication_pad3d"};
  OnnxValue padded = call.Run((mode == "reflect" ? reflections : edges)[dims - 1], {wide, NumbersFrom(pads)});
  if (rank > dims + 2) {
    Numbers whole = call.graph().SizesOf(x);
    for (std::size_t d = rank - dims; d < rank; ++d)
      whole[d] = padded->tensor().size(padded->rank() - static_cast<std::int64_t>(rank - d));
    padded = call.Run("reshape", {padded, whole});
  }
  for (std::size_t d = rank; d < dims + 2; ++d) padded = call.Run("squeeze", {padded, 0});
  return {padded};
}

std::vector<OnnxValue> DepthToSpace(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t block = call.Int("blocksize", 0);
  const std::string mode = call.Text("mode", "DCR");
  if (x->rank() != 4 || block < 1 || block > 1024 || x->tensor().size(1) % (block * block) != 0) {
    call.Refuse("has a blocksize that does not fit its input");
  }
  if (mode == "CRD") return {call.Run("pixel_shuffle", {x, block})};
  const Numbers own = call.graph().SizesOf(x);
  const std::int64_t channels = x->tensor().size(1) / (block * block);
  const OnnxValue apart = call.Run("reshape", {x, Numbers{own[0], block * block, channels, own[2], own[3]}});
  const OnnxValue turned = call.Run("flatten", {call.Run("transpose", {apart, 1, 2}), 1, 2});
  return {call.Run("pixel_shuffle", {turned, block})};
}

std::vector<OnnxValue> SpaceToDepth(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t block = call.Int("blocksize", 0);
  if (x->rank() != 4 || block < 1 || block > 1024) call.Refuse("has a blocksize that does not fit its input");
  const OnnxValue apart =
      call.Run("unflatten", {call.Run("pixel_unshuffle", {x, block}), 1, Numbers{x->tensor().size(1), block * block}});
  return {call.Run("flatten", {call.Run("transpose", {apart, 1, 2}), 1, 2})};
}

}  // namespace

void AddParts(OnnxTranslators& all) {
  all["Tile"] = Tile;
  all["Concat"] = Concat;
  all["Split"] = Split;
  all["Slice"] = Slice;
  all["Pad"] = Pad;
  all["DepthToSpace"] = DepthToSpace;
  all["SpaceToDepth"] = SpaceToDepth;
}

}  // namespace bitplan::onnx_import
