#include "exporters/onnx_integer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace bitplan {
namespace {

using onnx_file::Initializer;
using onnx_file::Operation;
using onnx_file::Type;

template <typename Value>
std::vector<Value> ValuesIn(const Initializer& initializer) {
  std::vector<Value> values(initializer.bytes.size() / sizeof(Value));
  std::memcpy(values.data(), initializer.bytes.data(), values.size() * sizeof(Value));
  return values;
}

template <typename Value>
std::string BytesOfValues(const std::vector<Value>& values) {
  std::string bytes(values.size() * sizeof(Value), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

constexpr double kOffStep = 0.1;          // what float32 makes of a bias of whole steps, and a little more
constexpr double kLargestBias = 1 << 20;  // steps; beyond, one of them is less than float32 can say

// A layer that reads codes: where its parts stand.
struct IntegerLayer {
  Operation* layer;
  Operation* weights;                // DequantizeLinear
  float input_scale;                 // of one step of the input
  std::vector<float> weight_scales;  // of every output channel, or one
};

class IntegerLayers {
 public:
  explicit IntegerLayers(onnx_file::Model& model) : model_(model) {
    for (const auto& port : model.outputs) ++readers_[port.name];
    for (std::size_t i = 0; i < model.operations.size(); ++i) {
      for (const auto& output : model.operations[i].outputs) makers_[output] = i;
      for (const auto& input : model.operations[i].inputs) ++readers_[input];
    }
    for (std::size_t i = 0; i < model.initializers.size(); ++i) {
      initializers_[model.initializers[i].name] = i;
      names_.insert(model.initializers[i].name);
    }
    for (const auto& [name, maker] : makers_) names_.insert(name);
  }

  void Run() {
    for (std::size_t i = 0; i < model_.operations.size(); ++i) FoldBatchNorm(i);
    const std::size_t count = model_.operations.size();
    std::vector<std::pair<std::size_t, Operation>> added;  // before which operation
    for (std::size_t i = 0; i < count; ++i) RoundBias(i, added);
    for (std::size_t i = 0; i < count; ++i) WidenWeights(i, added);
    std::stable_sort(added.begin(), added.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Operation> operations;
    auto next = added.begin();
    for (std::size_t i = 0; i < count; ++i) {
      for (; next != added.end() && next->first == i; ++next) operations.push_back(std::move(next->second));
      if (!removed_.contains(i)) operations.push_back(std::move(model_.operations[i]));
    }
    model_.operations = std::move(operations);
    RemoveUnread();
  }

 private:
  Operation* MakerOf(const std::string& name) {
    const auto found = makers_.find(name);
    return found == makers_.end() ? nullptr : &model_.operations[found->second];
  }
  Initializer* ConstantOf(const std::string& name) {
    const auto found = initializers_.find(name);
    return found == initializers_.end() ? nullptr : &model_.initializers[found->second];
  }

  std::optional<IntegerLayer> LayerAt(Operation& layer) {
    if ((layer.type != "Conv" && layer.type != "Gemm") || layer.inputs.size() < 2) return std::nullopt;
    const Operation* const input = MakerOf(layer.inputs[0]);
    Operation* const weights = MakerOf(layer.inputs[1]);
    if (input == nullptr || input->type != "DequantizeLinear" || ConstantOf(input->inputs[0]) != nullptr) return {};
    if (weights == nullptr || weights->type != "DequantizeLinear") return {};
    const Initializer* const step = ConstantOf(input->inputs[1]);
    const Initializer* const scales = ConstantOf(weights->inputs[1]);
    const Initializer* const codes = ConstantOf(weights->inputs[0]);
    if (step == nullptr || scales == nullptr || codes == nullptr) return {};
    IntegerLayer found{&layer, weights, ValuesIn<float>(*step).front(), ValuesIn<float>(*scales)};
    const auto axis = std::find_if(weights->attributes.begin(), weights->attributes.end(),
                                   [](const auto& attribute) { return attribute.name == "axis"; });
    if (found.weight_scales.size() > 1 &&
        (axis == weights->attributes.end() || std::get<std::int64_t>(axis->value) != 0)) {
      return {};
    }
    return found;
  }

  [[nodiscard]] std::int64_t ChannelsOf(const IntegerLayer& found) {
    return ConstantOf(found.weights->inputs[0])->dims[0];
  }

  std::string Add(Initializer initializer, const std::string& wish) {
    initializer.name = Unique(wish);
    initializers_[initializer.name] = model_.initializers.size();
    model_.initializers.push_back(std::move(initializer));
    return model_.initializers.back().name;
  }
  std::string AddFloats(const std::vector<float>& values, const std::string& wish) {
    return Add({"", Type::kFloat, {static_cast<std::int64_t>(values.size())}, BytesOfValues(values)}, wish);
  }
  std::string Unique(const std::string& wish) {
    std::string name = wish;
    for (int i = 1; !names_.insert(name).second; ++i) name = wish + "_" + std::to_string(i);
    return name;
  }

  void FoldBatchNorm(std::size_t at) {
    Operation& norm = model_.operations[at];
    if (norm.type != "BatchNormalization") return;
    Operation* const conv = MakerOf(norm.inputs[0]);
    if (conv == nullptr || conv->type != "Conv" || readers_[norm.inputs[0]] != 1) return;
    const auto found = LayerAt(*conv);
    if (!found || readers_[conv->inputs[1]] != 1) return;
    std::vector<std::vector<float>> parts;
    for (std::size_t i = 1; i < 5; ++i) {
      const Initializer* const part = ConstantOf(norm.inputs[i]);
      if (part == nullptr) return;
      parts.push_back(ValuesIn<float>(*part));
    }
    const auto channels = static_cast<std::size_t>(ChannelsOf(*found));
    std::vector<float> bias(channels, 0.0F);
    if (conv->inputs.size() > 2) {
      const Initializer* const own = ConstantOf(conv->inputs[2]);
      if (own == nullptr) return;
      bias = ValuesIn<float>(*own);
    }
    float eps = 1e-5F;
    for (const auto& attribute : norm.attributes) {
      if (attribute.name == "epsilon") eps = std::get<float>(attribute.value);
    }
    std::vector<float> scales = found->weight_scales;
    scales.resize(channels, scales.front());
    for (std::size_t c = 0; c < channels; ++c) {
      const double slope = parts[0][c] / std::sqrt(static_cast<double>(parts[3][c]) + static_cast<double>(eps));
      scales[c] = static_cast<float>(scales[c] * slope);
      bias[c] = static_cast<float>((static_cast<double>(bias[c]) - parts[2][c]) * slope + parts[1][c]);
    }
    found->weights->inputs[1] = AddFloats(scales, found->weights->inputs[1] + ":folded");
    found->weights->attributes = {{"axis", std::int64_t{0}}};
    conv->inputs.resize(2);
    conv->inputs.push_back(AddFloats(bias, norm.name + ":bias"));
    conv->outputs = norm.outputs;
    makers_[norm.outputs[0]] = static_cast<std::size_t>(conv - model_.operations.data());
    removed_.insert(at);
    norm.inputs.clear();
  }

  void RoundBias(std::size_t at, std::vector<std::pair<std::size_t, Operation>>& added) {
    if (removed_.contains(at)) return;
    Operation& layer = model_.operations[at];
    const auto found = LayerAt(layer);
    if (!found || layer.inputs.size() < 3) return;
    const Initializer* const bias = ConstantOf(layer.inputs[2]);
    if (bias == nullptr || bias->type != Type::kFloat || bias->dims.size() != 1) return;
    const auto values = ValuesIn<float>(*bias);
    std::vector<float> steps;
    std::vector<std::int32_t> codes;
    for (std::size_t c = 0; c < values.size(); ++c) {
      const float scale = found->weight_scales[found->weight_scales.size() == 1 ? 0 : c];
      steps.push_back(found->input_scale * scale);
      const double exact = static_cast<double>(values[c]) / static_cast<double>(steps.back());
      const double code = std::nearbyint(exact);
      if (std::abs(exact - code) > kOffStep && std::abs(code) < kLargestBias) return;
      if (!(std::abs(code) < static_cast<double>(std::numeric_limits<std::int32_t>::max()))) return;
      codes.push_back(static_cast<std::int32_t>(code));
    }
    const auto count = static_cast<std::int64_t>(values.size());
    const std::string name = layer.inputs[2];
    const std::string integers = Add({"", Type::kInt32, {count}, BytesOfValues(codes)}, name + ":integers");
    const std::string scales = AddFloats(steps, name + ":scales");
    Operation dequantize{.type = "DequantizeLinear",
                         .inputs = {integers, scales},
                         .outputs = {Unique(name + ":dequantized")},
                         .attributes = {{"axis", std::int64_t{0}}},
                         .name = Unique(name + "/DequantizeLinear")};
    layer.inputs[2] = dequantize.outputs[0];
    added.emplace_back(at, std::move(dequantize));
  }

  // Integers of 2 and 4 bits behind a Cast, and a zero point for the weight of a Gemm. Both once for a shared weight.
  void WidenWeights(std::size_t at, std::vector<std::pair<std::size_t, Operation>>& added) {
    if (removed_.contains(at)) return;
    const auto found = LayerAt(model_.operations[at]);
    if (!found || !ReadsBytes(model_.operations[at])) return;
    Operation& weights = *found->weights;
    const std::string name = weights.inputs[0];
    const Type type = ConstantOf(name)->type;
    if (type == Type::kInt16) return;
    const auto scales = ConstantOf(weights.inputs[1])->dims;
    if (model_.operations[at].type == "Gemm" && weights.inputs.size() == 2) {
      const std::string zeros(found->weight_scales.size(), '\0');
      weights.inputs.push_back(Add({"", Type::kInt8, scales, zeros}, name + ":zero_points"));
    }
    if (type == Type::kInt8 || !widened_.insert(name).second) return;
    Operation cast{.type = "Cast",
                   .inputs = {name},
                   .outputs = {Unique(name + ":int8")},
                   .attributes = {{"to", static_cast<std::int64_t>(Type::kInt8)}},
                   .name = Unique(name + "/Cast")};
    weights.inputs[0] = cast.outputs[0];
    added.emplace_back(makers_.at(weights.outputs[0]), std::move(cast));
  }

  // Whether the layer's input is uint8, which integer kernels are for.
  bool ReadsBytes(const Operation& layer) {
    const Operation* const input = MakerOf(layer.inputs[0]);
    const Initializer* const zero = input->inputs.size() < 3 ? nullptr : ConstantOf(input->inputs[2]);
    return zero != nullptr && zero->type == Type::kUint8;
  }

  void RemoveUnread() {
    std::set<std::string> read;
    for (const auto& operation : model_.operations) read.insert(operation.inputs.begin(), operation.inputs.end());
    std::erase_if(model_.initializers, [&](const Initializer& one) { return !read.contains(one.name); });
  }

  onnx_file::Model& model_;
  std::map<std::string, std::size_t> makers_, initializers_;
  std::map<std::string, int> readers_;
  std::set<std::string> names_;
  std::set<std::string> widened_;
  std::set<std::size_t> removed_;
};

}  // namespace

void MakeIntegerLayers(onnx_file::Model& model) { IntegerLayers(model).Run(); }

}  // namespace bitplan
