// Operators that change the shape of a value, or make values of a shape.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_tensor.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

constexpr std::int64_t kMostPadding = std::int64_t{1} << 24, kLongestStep = std::int64_t{1} << 31;

bool AllConstant(const Numbers& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](const Number& number) { return number.constant(); });
}

std::int64_t ProductAt(const Numbers& sizes, std::size_t walk) {
  std::int64_t product = 1;
  for (const Number& size : sizes) {
    if (__builtin_mul_overflow(product, size.at(walk), &product)) throw Refusal("has an impossible shape");
  }
  return product;
}

// The place of the batch in a shape that a file of batches of one size states. Row-major order leaves a choice only
// where the batch is merged with its neighbour; a wrong one is seen when the answers of images are compared.
std::size_t PlaceOfBatch(const Sizes& from, std::size_t batch_dim, const Sizes& to, std::int64_t batch) {
  const std::size_t behind = from.size() - batch_dim - 1;  // dimensions of `from` after the batch
  std::size_t same = 0;
  while (same < behind && same < to.size() && from[from.size() - 1 - same] == to[to.size() - 1 - same]) ++same;
  if (same == to.size()) --same;
  const std::size_t left = to.size() - same;
  if (batch_dim < left && to[batch_dim] == batch) return batch_dim;
  for (std::size_t d = left; d-- > 0;) {
    if (to[d] == batch) return d;
  }
  if (to.size() == from.size()) return batch_dim;
  // Flattened or split: behind the sizes that stood before it, merged with the last of them.
  std::int64_t before = 1, passed = 1;
  for (std::size_t d = 0; d < batch_dim; ++d) before *= from[d];
  std::size_t place = 0;
  while (passed < before && place + 1 < to.size()) passed *= to[place++];
  return passed == before && place > 0 ? place - 1 : std::min(batch_dim, to.size() - 1);
}

// Of a file that was made for batches of one size: the shape that it states, for any batch.
Numbers ForAnyBatch(const OnnxCall& call, const OnnxValue& x, const Numbers& stated) {
  OnnxBuilder& graph = call.graph();
  const std::int64_t dim = graph.BatchDim(x), batch = graph.fixed_batch();
  if (dim < 0 || stated.empty() || !AllConstant(stated)) return stated;
  Sizes to;
  for (const Number& size : stated) to.push_back(size.at(0));
  const std::size_t place = PlaceOfBatch(x->tensor().sizes().vec(), static_cast<std::size_t>(dim), to, batch);
  if (to[place] % batch != 0) throw FixedBatchRefusal("states a shape that is no multiple of the batch");
  Numbers sizes = stated;
  sizes[place] = graph.Batch(to[place] / batch);
  return sizes;
}

// Which one of the sizes is -1; the product of the others.
std::optional<std::size_t> OpenSize(const OnnxCall& call, const Numbers& sizes) {
  std::optional<std::size_t> open;
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d].constant() && sizes[d].at(0) < -1) call.Refuse("states an impossible shape");
    if (!sizes[d].constant() || sizes[d].at(0) != -1) continue;
    if (open) call.Refuse("leaves two sizes open");
    open = d;
  }
  return open;
}

OnnxValue ReshapeTo(const OnnxCall& call, const OnnxValue& x, Numbers sizes) {
  const bool fixed = call.graph().fixed_batch() > 0 && !x->constant();
  const auto open = OpenSize(call, sizes);
  if (fixed && open) {
    const std::int64_t others = -ProductAt(sizes, 0), all = x->tensor().numel();
    if (others <= 0 || all % others != 0) call.Refuse("states a shape that does not fit its input");
    // What the file means is its own batch; for others the same size may still be the open one.
    Numbers whole = sizes;
    whole[*open] = all / others;
    if (AllConstant(whole)) {
      sizes = ForAnyBatch(call, x, whole);
    }
  } else if (fixed) {
    sizes = ForAnyBatch(call, x, sizes);
  }
  const OnnxValue reshaped = call.Run("reshape", {x, sizes});
  if (reshaped->constant()) {
    reshaped->name = x->name;
    reshaped->parameter = x->parameter;
  }
  return reshaped;
}

std::vector<OnnxValue> Reshape(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  Numbers sizes = call.graph().NumbersIn(call.In(1));
  const bool keep_zero = call.Int("allowzero", 0) != 0;
  const Numbers own = call.graph().SizesOf(x);
  for (std::size_t d = 0; d < sizes.size() && !keep_zero; ++d) {
    if (!sizes[d].constant() || sizes[d].at(0) != 0) continue;
    if (d >= own.size()) call.Refuse("copies a size that its input does not have");
    sizes[d] = own[d];
  }
  return {ReshapeTo(call, x, sizes)};
}

std::vector<OnnxValue> Flatten(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t stated = call.Int("axis", 1);
  const std::int64_t axis = stated == x->rank() ? stated : call.Axis(stated, x->rank());
  if (axis == 1 && x->rank() == 2) return {x};
  if (axis == 1) return {call.Run("flatten", {x, 1, -1})};
  const Numbers own = call.graph().SizesOf(x);
  Number rows = 1;
  for (std::int64_t d = 0; d < axis; ++d) {
    const Number& size = own[static_cast<std::size_t>(d)];
    if (rows.constant() && size.constant()) {
      rows = rows.at(0) * size.at(0);
    } else {
      return {
          ReshapeTo(call, call.Run("flatten", {x, 0, axis - 1}), {-1, ProductAt({own.begin() + axis, own.end()}, 0)})};
    }
  }
  return {ReshapeTo(call, x, {rows, -1})};
}

// Axes as an attribute or, since operator set `since`, as an input.
std::optional<Sizes> AxesOf(const OnnxCall& call, std::int64_t since) {
  if (call.opset() < since) return call.Ints("axes");
  if (!call.Has(1)) return std::nullopt;
  const torch::Tensor axes = call.ConstantIn(1).to(torch::kInt64).reshape({-1}).contiguous();
  return Sizes(axes.data_ptr<std::int64_t>(), axes.data_ptr<std::int64_t>() + axes.numel());
}

std::vector<OnnxValue> Squeeze(const OnnxCall& call) {
  OnnxValue x = call.In(0);
  std::set<std::int64_t> dims;
  if (const auto axes = AxesOf(call, 13)) {
    for (const std::int64_t axis : *axes) dims.insert(call.Axis(axis, x->rank()));
  } else {
    const Numbers sizes = call.graph().SizesOf(x);
    for (std::size_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d].constant() && sizes[d].at(0) == 1) dims.insert(static_cast<std::int64_t>(d));
    }
  }
  for (auto dim = dims.rbegin(); dim != dims.rend(); ++dim) {
    for (const torch::Tensor& walk : x->walks) {
      if (walk.size(*dim) == 1) continue;
      if (x->tensor().size(*dim) == 1) throw FixedBatchRefusal("drops the dimension of the batch");
      call.Refuse("drops a dimension whose size is not 1");
    }
    const OnnxValue thin = call.Run("squeeze", {x, *dim});
    if (thin->constant()) thin->parameter = x->parameter;
    x = thin;
  }
  return {x};
}

std::vector<OnnxValue> Unsqueeze(const OnnxCall& call) {
  OnnxValue x = call.In(0);
  const auto axes = AxesOf(call, 13);
  if (!axes) call.Refuse("states no axes");
  std::set<std::int64_t> dims;
  for (const std::int64_t axis : *axes) {
    dims.insert(call.Axis(axis, x->rank() + static_cast<std::int64_t>(axes->size())));
  }
  for (const std::int64_t dim : dims) {
    const OnnxValue wide = call.Run("unsqueeze", {x, dim});
    if (wide->constant()) wide->parameter = x->parameter;
    x = wide;
  }
  return {x};
}

std::vector<OnnxValue> Transpose(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  Sizes order;
  for (std::int64_t d = x->rank(); d-- > 0;) order.push_back(d);
  order = call.Ints("perm").value_or(order);
  if (order == Sizes{1, 0} && x->rank() == 2) return {call.graph().Turned(x)};
  const OnnxValue turned = call.Run("permute", {x, NumbersFrom(order)});
  if (turned->constant()) {
    turned->name = x->name;
    turned->parameter = x->parameter;
  }
  return {turned};
}

std::vector<OnnxValue> Expand(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  Numbers sizes = call.graph().NumbersIn(call.In(1));
  const Numbers own = call.graph().SizesOf(x);
  if (sizes.size() < own.size()) sizes.insert(sizes.begin(), own.size() - sizes.size(), Number(1));
  const std::size_t added = sizes.size() - own.size();
  Numbers all = sizes;
  for (std::size_t d = added; d < sizes.size(); ++d) {
    const Number& size = sizes[d];
    if ((size.constant() && size.at(0) == 1) || (!own[d - added].constant() && size.constant())) {
      sizes[d] = -1;
      all[d] = own[d - added];
    } else if (!size.constant() && !own[d - added].constant()) {
      sizes[d] = -1;  // both are sizes that the batch gives
      all[d] = own[d - added];
    }
  }
  call.graph().CheckSize(all);
  return {call.Run("expand", {x, sizes})};
}

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

std::vector<OnnxValue> Shape(const OnnxCall& call) {
  const OnnxValue& x = call.In(0);
  const std::int64_t rank = x->rank();
  const auto place = [&](std::int64_t at) { return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank); };
  const std::int64_t begin = place(call.Int("start", 0)), end = place(call.Int("end", rank));
  return {call.Run("slice", {call.Run("_shape_as_tensor", {x}), 0, begin, end, 1})};
}

std::vector<OnnxValue> Size(const OnnxCall& call) {
  return {call.Run("prod", {call.Run("_shape_as_tensor", {call.In(0)})})};
}

std::vector<OnnxValue> ConstantOfShape(const OnnxCall& call) {
  const torch::Tensor value = call.TensorAttribute("value").value_or(torch::zeros({1}));
  const Numbers sizes = call.graph().NumbersIn(call.In(0));
  call.graph().CheckSize(sizes);
  if (value.numel() != 1) call.Refuse("fills with more than one number");
  const c10::IValue type = static_cast<std::int64_t>(value.scalar_type());
  const c10::IValue number =
      value.is_floating_point() ? c10::IValue(value.item<double>()) : c10::IValue(value.item<std::int64_t>());
  return {call.Run("full", {sizes, number}, {{"dtype", type}})};
}

std::vector<OnnxValue> Range(const OnnxCall& call) {
  for (const std::size_t input : {0, 1, 2}) {
    if (call.In(input)->source == Source::kData) call.Refuse("counts to a number of activations");
    if (call.In(input)->tensor().numel() != 1) call.Refuse("needs three numbers");
  }
  for (std::size_t w = 0; w < call.graph().walks(); ++w) {
    const auto at = [&](std::size_t input) { return call.In(input)->walks[w].to(torch::kDouble).item<double>(); };
    const double count = (at(1) - at(0)) / at(2);
    if (!(count < 1e9) || at(2) == 0.0) call.Refuse("counts too far");
    call.graph().CheckSize({std::max<std::int64_t>(0, static_cast<std::int64_t>(count))});
  }
  if (call.In(0)->tensor().is_floating_point()) {
    return {call.graph().Constant(torch::arange(call.ConstantIn(0).item<double>(), call.ConstantIn(1).item<double>(),
                                                call.ConstantIn(2).item<double>(), torch::kFloat),
                                  "")};
  }
  const auto one = [&](std::size_t input) { return call.graph().NumbersIn(call.In(input)).front(); };
  return {call.Run("arange", {one(0), one(1), one(2)})};
}

std::vector<OnnxValue> Constant(const OnnxCall& call) {
  std::optional<torch::Tensor> value = call.TensorAttribute("value");
  if (call.HasAttribute("value_float")) value = torch::tensor(call.Real("value_float", 0.0), torch::kFloat);
  if (call.HasAttribute("value_int")) value = torch::tensor(call.Int("value_int", 0), torch::kInt64);
  if (const auto integers = call.Ints("value_ints")) value = torch::tensor(*integers, torch::kInt64);
  if (const auto reals = call.Reals("value_floats")) value = torch::tensor(*reals, torch::kFloat);
  if (!value) call.Refuse("has no value that bitplan reads");
  const OnnxValue constant = call.graph().Constant(*value, "");
  // A weight that an exporter wrote as a constant; masks and tables of one dimension stay what they are.
  constant->parameter = value->is_floating_point() && value->dim() >= 2 && value->numel() > 1;
  return {constant};
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

void AddShapes(OnnxTranslators& all) {
  all["Reshape"] = Reshape;
  all["Flatten"] = Flatten;
  all["Squeeze"] = Squeeze;
  all["Unsqueeze"] = Unsqueeze;
  all["Transpose"] = Transpose;
  all["Expand"] = Expand;
  all["Tile"] = Tile;
  all["Concat"] = Concat;
  all["Split"] = Split;
  all["Shape"] = Shape;
  all["Size"] = Size;
  all["ConstantOfShape"] = ConstantOfShape;
  all["Range"] = Range;
  all["Constant"] = Constant;
  all["Slice"] = Slice;
  all["Pad"] = Pad;
  all["DepthToSpace"] = DepthToSpace;
  all["SpaceToDepth"] = SpaceToDepth;
}

}  // namespace bitplan::onnx_import
