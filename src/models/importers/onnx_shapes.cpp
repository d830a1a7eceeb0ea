// Operators that change the shape of a value as a whole, or make values of a shape.
#include <algorithm>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

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

}  // namespace

void AddShapes(OnnxTranslators& all) {
  all["Reshape"] = Reshape;
  all["Flatten"] = Flatten;
  all["Squeeze"] = Squeeze;
  all["Unsqueeze"] = Unsqueeze;
  all["Transpose"] = Transpose;
  all["Expand"] = Expand;
  all["Shape"] = Shape;
  all["Size"] = Size;
  all["ConstantOfShape"] = ConstantOfShape;
  all["Range"] = Range;
  all["Constant"] = Constant;
}

}  // namespace bitplan::onnx_import
