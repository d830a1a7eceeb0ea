// Resize and the older Upsample: by LibTorch's operation where it has the same coordinates, otherwise from the places
// that the formula of the file's mode gives, dimension by dimension.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "models/importers/onnx_call.h"
#include "models/importers/onnx_windows.h"

namespace bitplan::onnx_import {
namespace {

struct Resized {
  std::int64_t dim, from, to;
  double scale;
};

// The dimensions that change, all of a fixed size.
std::vector<Resized> ResizedOf(const OnnxCall& call, std::size_t scales_input, std::optional<std::size_t> sizes_input) {
  const OnnxValue& x = call.In(0);
  const Numbers own = call.graph().SizesOf(x);
  Sizes axes = call.Ints("axes").value_or(Sizes{});
  if (axes.empty()) {
    for (std::int64_t d = 0; d < x->rank(); ++d) axes.push_back(d);
  }
  const bool by_sizes = sizes_input && call.Has(*sizes_input) && call.In(*sizes_input)->tensor().numel() > 0;
  Numbers sizes;
  std::vector<float> scales;
  if (by_sizes) {
    sizes = call.graph().NumbersIn(call.In(*sizes_input));
  } else if (const auto attribute = call.Reals("scales")) {
    scales = *attribute;
  } else {
    const torch::Tensor given = call.ConstantIn(scales_input).to(torch::kFloat).reshape({-1}).contiguous();
    scales.assign(given.data_ptr<float>(), given.data_ptr<float>() + given.numel());
  }
  if ((by_sizes ? sizes.size() : scales.size()) != axes.size()) call.Refuse("has not one size for every dimension");
  std::vector<Resized> changed;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const std::int64_t dim = call.Axis(axes[i], x->rank());
    const Number& from = own[static_cast<std::size_t>(dim)];
    if (!by_sizes && scales[i] == 1.0F) continue;
    if (by_sizes && !sizes[i].constant() && !from.constant()) continue;  // the batch
    const bool batch_of_file = by_sizes && !from.constant() && sizes[i].constant() &&
                               sizes[i].at(0) == x->tensor().size(dim) && call.graph().fixed_batch() > 0;
    if (batch_of_file) continue;
    if (!from.constant() || from.at(0) < 1 || (by_sizes && !sizes[i].constant())) {
      call.Refuse("resizes a dimension whose size the file leaves open");
    }
    const double scale = by_sizes ? static_cast<double>(sizes[i].at(0)) / static_cast<double>(from.at(0))
                                  : static_cast<double>(scales[i]);
    const double to =
        by_sizes ? static_cast<double>(sizes[i].at(0)) : std::floor(static_cast<double>(from.at(0)) * scale + 1e-6);
    if (!(to >= 1.0 && to <= 1e6)) call.Refuse("resizes to an impossible size");
    if (static_cast<std::int64_t>(to) == from.at(0) && scale == 1.0) continue;
    changed.push_back({dim, from.at(0), static_cast<std::int64_t>(to), scale});
  }
  return changed;
}

// Where a number of the result lies in the input: in float32, so that what lies half way does so here as elsewhere.
float PlaceIn(const OnnxCall& call, const std::string& mode, const Resized& one, std::int64_t at) {
  const auto place = static_cast<float>(at), to = static_cast<float>(one.to), from = static_cast<float>(one.from);
  const auto scale = static_cast<float>(one.scale);
  if (mode == "half_pixel") return (place + 0.5F) / scale - 0.5F;
  if (mode == "pytorch_half_pixel") return one.to > 1 ? (place + 0.5F) / scale - 0.5F : 0.0F;
  if (mode == "asymmetric") return place / scale;
  if (mode == "align_corners") return one.to > 1 ? place * (from - 1.0F) / (to - 1.0F) : 0.0F;
  call.Refuse("has the coordinates " + Shown(mode) + ", which bitplan does not translate");
}

float Nearest(const OnnxCall& call, const std::string& mode, float place) {
  if (mode == "floor") return std::floor(place);
  if (mode == "ceil") return std::ceil(place);
  if (mode == "round_prefer_floor") return std::ceil(place - 0.5F);
  if (mode == "round_prefer_ceil") return std::floor(place + 0.5F);
  call.Refuse("has an unknown nearest_mode");
}

OnnxValue Taken(const OnnxCall& call, const OnnxValue& x, std::int64_t dim, const Sizes& places) {
  const OnnxValue order = call.graph().Constant(torch::tensor(places, torch::kInt64), "places");
  return call.Run("index_select", {x, dim, order});
}

OnnxValue ByNearest(const OnnxCall& call, OnnxValue x, const std::vector<Resized>& changed, const std::string& mode,
                    const std::string& nearest) {
  for (const Resized& one : changed) {
    Sizes places;
    for (std::int64_t at = 0; at < one.to; ++at) {
      const float place = Nearest(call, nearest, PlaceIn(call, mode, one, at));
      places.push_back(std::clamp<std::int64_t>(static_cast<std::int64_t>(place), 0, one.from - 1));
    }
    x = Taken(call, x, one.dim, places);
  }
  return x;
}

OnnxValue ByLines(const OnnxCall& call, OnnxValue x, const std::vector<Resized>& changed, const std::string& mode) {
  for (const Resized& one : changed) {
    Sizes below, above;
    std::vector<float> shares;
    for (std::int64_t at = 0; at < one.to; ++at) {
      const float place = std::clamp(PlaceIn(call, mode, one, at), 0.0F, static_cast<float>(one.from - 1));
      below.push_back(static_cast<std::int64_t>(place));
      above.push_back(std::min(below.back() + 1, one.from - 1));
      shares.push_back(place - std::floor(place));
    }
    Sizes along(static_cast<std::size_t>(x->rank()), 1);
    along[static_cast<std::size_t>(one.dim)] = one.to;
    const OnnxValue share = call.graph().Constant(torch::tensor(shares).reshape(along), "shares");
    x = call.Run("lerp", {Taken(call, x, one.dim, below), Taken(call, x, one.dim, above), share});
  }
  return x;
}

// LibTorch's own, over the last one, two or three dimensions. Null where it has none.
OnnxValue ByLibTorch(const OnnxCall& call, const std::vector<Resized>& changed, const std::string& mode,
                     const std::string& coordinates) {
  const OnnxValue& x = call.In(0);
  const std::int64_t dims = x->rank() - 2;
  if (dims < 1 || dims > 3) return nullptr;
  Numbers sizes;
  std::vector<double> scales(static_cast<std::size_t>(dims), 1.0);
  const Numbers own = call.graph().SizesOf(x);
  for (std::int64_t d = 0; d < dims; ++d) sizes.push_back(own[static_cast<std::size_t>(d) + 2]);
  for (const Resized& one : changed) {
    if (one.dim < 2) return nullptr;
    sizes[static_cast<std::size_t>(one.dim - 2)] = one.to;
    scales[static_cast<std::size_t>(one.dim - 2)] = one.scale;
  }
  const bool corners = coordinates == "align_corners",
             pixels = coordinates == "half_pixel" || coordinates == "pytorch_half_pixel";
  const char* operation = nullptr;
  if (mode == "linear" && (corners || pixels)) {
    static const char* const names[] = {"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"};
    operation = names[dims - 1];
  } else if (mode == "cubic" && (corners || pixels) && dims == 2 && call.Real("cubic_coeff_a", -0.75) == -0.75) {
    operation = "upsample_bicubic2d";
  }
  if (operation == nullptr) return nullptr;
  Arguments arguments = {x, sizes, corners};
  for (const double scale : scales) {
    // By its scale only where it is not the quotient of the sizes.
    arguments.emplace_back(corners ? Argument(std::nullopt) : Argument(scale));
  }
  return call.Run(operation, arguments);
}

std::vector<OnnxValue> ResizeBy(const OnnxCall& call, const std::vector<Resized>& changed, const std::string& mode,
                                const std::string& coordinates, const std::string& nearest) {
  if (changed.empty()) return {call.In(0)};
  if (!call.In(0)->tensor().is_floating_point()) call.Refuse("resizes integers");
  Numbers sizes;
  for (std::int64_t d = 0; d < call.In(0)->rank(); ++d) sizes.emplace_back(call.In(0)->walks.back().size(d));
  for (const Resized& one : changed) sizes[static_cast<std::size_t>(one.dim)] = one.to;
  call.graph().CheckSize(sizes);
  if (mode == "nearest") return {ByNearest(call, call.In(0), changed, coordinates, nearest)};
  if (const OnnxValue made = ByLibTorch(call, changed, mode, coordinates)) return {made};
  if (mode == "linear") return {ByLines(call, call.In(0), changed, coordinates)};
  call.Refuse("has the mode " + Shown(mode) + " with the coordinates " + Shown(coordinates) +
              ", which bitplan does not translate");
}

std::vector<OnnxValue> Resize(const OnnxCall& call) {
  const bool old = call.opset() < 11;
  const std::string mode = call.Text("mode", "nearest");
  const std::string coordinates = call.Text("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel");
  const std::string nearest = call.Text("nearest_mode", old ? "floor" : "round_prefer_floor");
  if (call.Int("antialias", 0) != 0) call.Refuse("smooths before it makes images smaller (antialias=1)");
  if (call.Int("exclude_outside", 0) != 0) call.Refuse("leaves out what lies outside (exclude_outside=1)");
  if (call.Text("keep_aspect_ratio_policy", "stretch") != "stretch") call.Refuse("keeps the ratio of the sides");
  call.Ignore("extrapolation_value");
  call.Ignore("cubic_coeff_a");
  const auto changed = old ? ResizedOf(call, 1, std::nullopt) : ResizedOf(call, 2, 3);
  return ResizeBy(call, changed, mode, coordinates, nearest);
}

std::vector<OnnxValue> Upsample(const OnnxCall& call) {
  return ResizeBy(call, ResizedOf(call, 1, std::nullopt), call.Text("mode", "nearest"), "asymmetric", "floor");
}

}  // namespace

void AddResize(OnnxTranslators& all) {
  all["Resize"] = Resize;
  all["Upsample"] = Upsample;
}

}  // namespace bitplan::onnx_import
