// Operators that move numbers about. Their results have sizes that the walk has seen, so most need no arithmetic.
#include <algorithm>
#include <limits>
#include <numeric>

#include "exporters/onnx_operators.h"

namespace bitplan::onnx_operators {
namespace {

// view, flatten, unsqueeze, ...: same numbers in the same order.
Names Reshaped(const OnnxCall& call) { return {call.graph().Reshape(call.Name(0), call.OutSizes())}; }

std::string Transposed(const OnnxCall& call, const Numbers& order) {
  return call.graph().Add("Transpose", {call.Name(0)}, {{"perm", order}});
}

Numbers InOrder(std::int64_t dims) {
  Numbers order(static_cast<std::size_t>(dims));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

Names Permute(const OnnxCall& call) {
  Numbers order = call.Ints("dims");
  for (std::int64_t& dim : order) dim += dim < 0 ? call.Dims(0) : 0;
  return {Transposed(call, order)};
}
Names Transpose(const OnnxCall& call) {
  Numbers order = InOrder(call.Dims(0));
  std::swap(order[static_cast<std::size_t>(call.Dim(1, call.Dims(0)))],
            order[static_cast<std::size_t>(call.Dim(2, call.Dims(0)))]);
  return {Transposed(call, order)};
}
Names Reversed(const OnnxCall& call) {  // t, numpy_T
  Numbers order = InOrder(call.Dims(0));
  std::reverse(order.begin(), order.end());
  return {Transposed(call, order)};
}
Names LastTwoSwapped(const OnnxCall& call) {  // mT
  Numbers order = InOrder(call.Dims(0));
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return {Transposed(call, order)};
}
Names MoveDim(const OnnxCall& call) {
  const std::int64_t dims = call.Dims(0);
  Numbers from = call.Ints("source"), to = call.Ints("destination"), order(static_cast<std::size_t>(dims), -1), rest;
  for (std::size_t i = 0; i < from.size(); ++i) {
    from[i] += from[i] < 0 ? dims : 0;
    order[static_cast<std::size_t>(to[i] < 0 ? to[i] + dims : to[i])] = from[i];
  }
  for (std::int64_t d = 0; d < dims; ++d) {
    if (std::find(from.begin(), from.end(), d) == from.end()) rest.push_back(d);
  }
  auto next = rest.begin();
  for (std::int64_t& dim : order) dim = dim < 0 ? *next++ : dim;
  return {Transposed(call, order)};
}

Names Joined(const OnnxCall& call, const Names& parts, std::int64_t axis) {
  return {parts.size() == 1 ? parts.front() : call.graph().Add("Concat", parts, {{"axis", axis}})};
}
Names Cat(const OnnxCall& call) {
  const auto type = call.Out().scalar_type();
  const auto tensors = call.Value("tensors").toTensorVector();
  const Names names = call.NamesIn("tensors");
  Names parts;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (tensors[i].dim() == 1 && tensors[i].numel() == 0) continue;  // PyTorch leaves these out
    parts.push_back(tensors[i].scalar_type() == type ? names[i] : call.graph().Cast(names[i], type));
  }
  return Joined(call, parts, call.Dim("dim", call.Out().dim()));
}
Names Stack(const OnnxCall& call) {
  const std::int64_t axis = call.Dim("dim", call.Out().dim());
  Names parts;
  for (const std::string& name : call.NamesIn("tensors")) {
    parts.push_back(call.graph().Add("Unsqueeze", {name, call.graph().Ints({axis})}));
  }
  return Joined(call, parts, axis);
}

// chunk, split, tensor_split: the sizes of the parts are known.
Names Split(const OnnxCall& call) {
  const std::int64_t axis = call.Dim("dim", call.Dims(0));
  Numbers sizes;
  for (std::size_t i = 0; i < call.Outs(); ++i) {
    const Extent size = call.OutSizes(i)[static_cast<std::size_t>(axis)];
    if (!size.fixed()) call.Refuse("takes the batch apart");
    sizes.push_back(size.first);
  }
  if (sizes.size() == 1) return {call.Name(0)};
  return call.graph().AddMany("Split", {call.Name(0), call.graph().Ints(sizes)}, {{"axis", axis}}, sizes.size());
}
Names Unbind(const OnnxCall& call) {
  const std::int64_t axis = call.Dim("dim", call.Dims(0));
  if (!call.SizesOf(0)[static_cast<std::size_t>(axis)].fixed()) call.Refuse("takes the batch apart");
  Names parts;
  for (std::size_t i = 0; i < call.Outs(); ++i) {
    const auto index = static_cast<double>(i);
    parts.push_back(
        call.graph().Add("Gather", {call.Name(0), call.graph().Number(index, torch::kInt64)}, {{"axis", axis}}));
  }
  return parts;
}

std::string Sliced(const OnnxCall& call, std::int64_t axis, std::int64_t begin, std::int64_t end, std::int64_t step) {
  OnnxGraph& graph = call.graph();
  return graph.Add("Slice",
                   {call.Name(0), graph.Ints({begin}), graph.Ints({end}), graph.Ints({axis}), graph.Ints({step})});
}
bool SameSizes(const Extents& a, const Extents& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const Extent& one, const Extent& other) {
           return one.first == other.first && one.second == other.second;
         });
}
Names Slice(const OnnxCall& call) {
  const std::int64_t step = call.Int("step", 1);
  if (step == 1 && SameSizes(call.SizesOf(0), call.OutSizes())) return {call.Name(0)};
  return {Sliced(call, call.Dim("dim", call.Dims(0)), call.Int("start", 0),
                 call.Int("end", std::numeric_limits<std::int64_t>::max()), step)};
}
Names Narrow(const OnnxCall& call) {
  const std::int64_t axis = call.Dim("dim", call.Dims(0));
  std::int64_t start = call.Int("start");
  if (SameSizes(call.SizesOf(0), call.OutSizes())) return {call.Name(0)};
  if (start < 0) start += call.Tensor(0).size(axis);
  return {Sliced(call, axis, start, start + call.Int("length"), 1)};
}
Names Select(const OnnxCall& call) {
  const std::string index = call.graph().Constant(torch::scalar_tensor(call.Int("index"), torch::kInt64));
  return {call.graph().Add("Gather", {call.Name(0), index}, {{"axis", call.Dim("dim", call.Dims(0))}})};
}
Names IndexSelect(const OnnxCall& call) {
  return {call.graph().Add("Gather", {call.Name(0), call.Name("index")}, {{"axis", call.Dim("dim", call.Dims(0))}})};
}
Names Gather(const OnnxCall& call) {
  return {call.graph().Add("GatherElements", {call.Name(0), call.Name("index")},
                           {{"axis", call.Dim("dim", call.Dims(0))}})};
}

// x[:, index]: one tensor of whole numbers, everything else as it is.
Names Index(const OnnxCall& call) {
  const auto& list = call.Value("indices").toListRef();
  std::int64_t axis = -1;
  for (std::size_t d = 0; d < list.size(); ++d) {
    if (list[d].isNone() || !list[d].toTensor().defined()) continue;
    if (axis >= 0) call.Refuse("has several indices");
    axis = static_cast<std::int64_t>(d);
  }
  if (axis < 0) return {call.Name(0)};
  const torch::Tensor index = list[static_cast<std::size_t>(axis)].toTensor();
  if (index.scalar_type() == torch::kBool || index.scalar_type() == torch::kUInt8) call.Refuse("selects by a mask");
  return {call.graph().Add("Gather", {call.Name(0), call.NameInList("indices", static_cast<std::size_t>(axis))},
                           {{"axis", axis}})};
}

Names Expand(const OnnxCall& call) {
  if (SameSizes(call.SizesOf(0), call.OutSizes())) return {call.Name(0)};
  return {call.graph().Add("Expand", {call.Name(0), call.graph().Shape(call.OutSizes())})};
}
Names Repeat(const OnnxCall& call) {
  const Extents from = call.SizesOf(0), to = call.OutSizes();
  Extents padded(to.size() - from.size(), Extent{1, 1}), times;
  padded.insert(padded.end(), from.begin(), from.end());
  for (std::size_t d = 0; d < to.size(); ++d) {
    times.push_back({to[d].first / padded[d].first, to[d].second / padded[d].second});
  }
  const std::string whole = padded.size() == from.size() ? call.Name(0) : call.graph().Reshape(call.Name(0), padded);
  return {call.graph().Add("Tile", {whole, call.graph().Shape(times)})};
}
Names RepeatInterleave(const OnnxCall& call) {
  if (!call.Has("dim") || call.Value("repeats").isTensor()) call.Refuse("repeats each part in a way of its own");
  const std::int64_t axis = call.Dim("dim", call.Dims(0)), times = call.Int("repeats");
  Extents apart = call.SizesOf(0);
  const auto after = apart.begin() + axis + 1;
  Numbers tiles(apart.size() + 1, 1);
  tiles[static_cast<std::size_t>(axis) + 1] = times;
  apart.insert(after, Extent{1, 1});
  const std::string split = call.graph().Reshape(call.Name(0), apart);
  return {call.graph().Reshape(call.graph().Add("Tile", {split, call.graph().Ints(tiles)}), call.OutSizes())};
}

Names Flip(const OnnxCall& call) {
  const Numbers axes = call.Ints("dims");
  OnnxGraph& graph = call.graph();
  return {graph.Add("Slice", {call.Name(0), graph.Ints(Numbers(axes.size(), -1)),
                              graph.Ints(Numbers(axes.size(), std::numeric_limits<std::int64_t>::min())),
                              graph.Ints(axes), graph.Ints(Numbers(axes.size(), -1))})};
}
Names Roll(const OnnxCall& call) {
  const Numbers shifts = call.Ints("shifts"), axes = call.Ints("dims");
  if (axes.size() != shifts.size()) call.Refuse("rolls all numbers as one row");
  OnnxGraph& graph = call.graph();
  std::string value = call.Name(0);
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::int64_t last = std::numeric_limits<std::int64_t>::max();
    const auto part = [&](std::int64_t begin, std::int64_t end) {
      return graph.Add("Slice", {value, graph.Ints({begin}), graph.Ints({end}), graph.Ints({axes[i]})});
    };
    if (shifts[i] == 0) continue;
    value = graph.Add("Concat", {part(-shifts[i], last), part(0, -shifts[i])}, {{"axis", axes[i]}});
  }
  return {value};
}
Names Triangle(const OnnxCall& call) {
  const std::string diagonal = call.graph().Number(static_cast<double>(call.Int("diagonal", 0)), torch::kInt64);
  return {call.graph().Add("Trilu", {call.Name(0), diagonal},
                           {{"upper", std::int64_t{call.Operator() == "triu" ? 1 : 0}}})};
}

}  // namespace

void AddShapes(OnnxTranslators& all) {
  for (const char* name : {"view", "reshape", "_unsafe_view", "_reshape_alias", "flatten", "unflatten", "view_as",
                           "reshape_as", "squeeze", "unsqueeze", "ravel", "atleast_2d"}) {
    all[name] = Reshaped;
  }
  for (const char* name : {"transpose", "swapaxes", "swapdims"}) all[name] = Transpose;
  for (const char* name : {"t", "numpy_T"}) all[name] = Reversed;
  for (const char* name : {"cat", "concat"}) all[name] = Cat;
  for (const char* name : {"chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"}) {
    all[name] = Split;
  }
  for (const char* name : {"expand", "expand_as", "broadcast_to"}) all[name] = Expand;
  for (const char* name : {"repeat", "tile"}) all[name] = Repeat;
  for (const char* name : {"tril", "triu"}) all[name] = Triangle;
  for (const char* name : {"movedim", "moveaxis"}) all[name] = MoveDim;
  all["permute"] = Permute;
  all["mT"] = LastTwoSwapped;
  all["stack"] = Stack;
  all["unbind"] = Unbind;
  all["slice"] = Slice;
  all["narrow"] = Narrow;
  all["select"] = Select;
  all["index_select"] = IndexSelect;
  all["gather"] = Gather;
  all["index"] = Index;
  all["repeat_interleave"] = RepeatInterleave;
  all["flip"] = Flip;
  all["roll"] = Roll;
}

}  // namespace bitplan::onnx_operators
