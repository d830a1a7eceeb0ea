// compressed-tensors, the format of Hugging Face Transformers and vLLM: "pack-quantized". A safetensors file, and the
// quantization_config that belongs into the config.json of the model. docs/formats.md describes both.
//
// A linear layer of b bits stands as signed integers of b bits (grid zero), or of b + 1 bits, odd, with half of the
// scale (grid half). Row by row element i takes the bits i*b .. i*b + b - 1 of little-endian int32 words, plus 2^(b-1).
// Scales are float32 [out, 1]: a value is scale * integer, one product in float32, whatever the sign of the scale.
// Source: github.com/vllm-project/compressed-tensors, version 0.18.0, commit ac8e2ba:
// src/compressed_tensors/compressors/pack_quantized (layout), quantization/quant_config.py, quant_scheme.py and
// quant_args.py (schema). Earlier versions packed widths that do not divide 32 in another way.
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/onnx_weights.h"
#include "io/json_text.h"
#include "io/safetensors.h"

namespace bitplan {
namespace {

constexpr char kWeightEnding[] = ".weight";
constexpr int kWordBits = 32, kMostPackedBits = 8;

// The module whose weight it is; empty where the parameter is not called so.
std::string ModuleOf(const std::string& parameter) {
  const std::string ending = kWeightEnding;
  const bool named = parameter.size() > ending.size() &&
                     parameter.compare(parameter.size() - ending.size(), ending.size(), ending) == 0;
  return named ? parameter.substr(0, parameter.size() - ending.size()) : "";
}

bool IsLinearInPlan(const Plan& plan, const std::string& layer) {
  const auto found =
      std::find_if(plan.layers.begin(), plan.layers.end(), [&](const PlanLayer& one) { return one.name == layer; });
  return found == plan.layers.end() || found->kind == "linear";
}

// [rows, columns] of signed integers, each row from a new word on.
torch::Tensor Words(const torch::Tensor& integers, int bits) {
  const torch::Tensor from = integers.to(torch::kInt32).contiguous();
  const std::int64_t rows = from.size(0), columns = from.size(1);
  const std::int64_t words = (columns * bits + kWordBits - 1) / kWordBits;
  torch::Tensor packed = torch::zeros({rows, words}, torch::kInt32);
  const auto* integer = from.data_ptr<std::int32_t>();
  auto* const word = reinterpret_cast<std::uint32_t*>(packed.data_ptr<std::int32_t>());
  const int half = 1 << (bits - 1);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const auto code = static_cast<std::uint32_t>(*integer++ + half);
      const std::int64_t at = r * words + c * bits / kWordBits;
      const auto shift = static_cast<int>(c * bits % kWordBits);
      word[at] |= code << shift;
      if (shift + bits > kWordBits) word[at + 1] |= code >> (kWordBits - shift);
    }
  }
  return packed;
}

// What a state dict holds, in the order of the file.
class StateDict {
 public:
  void Add(const std::string& name, const torch::Tensor& value) {
    const torch::Tensor whole = value.contiguous();
    entries_.push_back(
        {name, TypeName(name, whole.scalar_type()), whole.sizes().vec(), static_cast<std::int64_t>(whole.nbytes())});
    tensors_.push_back(whole);
  }

  [[nodiscard]] std::string File(const safetensors::Metadata& metadata) const {
    std::string bytes = safetensors::Header(entries_, metadata);
    for (const torch::Tensor& tensor : tensors_) {
      bytes.append(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
    }
    return bytes;
  }

 private:
  static std::string TypeName(const std::string& name, torch::ScalarType type) {
    static const std::map<torch::ScalarType, const char*> names = {
        {torch::kFloat32, "F32"}, {torch::kFloat64, "F64"}, {torch::kFloat16, "F16"}, {torch::kBFloat16, "BF16"},
        {torch::kInt64, "I64"},   {torch::kInt32, "I32"},   {torch::kInt16, "I16"},   {torch::kInt8, "I8"},
        {torch::kUInt8, "U8"},    {torch::kBool, "BOOL"}};
    const auto found = names.find(type);
    if (found != names.end()) return found->second;
    throw Error(ErrorKind::kData, fmt::format("compressed-tensors: tensor '{}' is of type {}, which safetensors has no "
                                              "name for; convert the model to float32 and run the recipe again",
                                              name, c10::toString(type)));
  }

  std::vector<safetensors::Entry> entries_;
  std::vector<torch::Tensor> tensors_;
};

struct PackedLinear {
  int bits = 0;
  torch::Tensor words, scales, shape;
};

// Empty where it is no linear layer of Hugging Face, needs more than 8 bits, or would not give these weights back bit
// for bit.
std::optional<PackedLinear> PackedAs(const QuantizedLayer& layer) {
  const IntegerWeight weight = IntegersOf(layer);
  if (weight.integers.dim() != 2 || weight.axis != 0 || weight.bits > kMostPackedBits) return std::nullopt;
  PackedLinear packed;
  packed.bits = std::max(weight.bits, 1);  // a layer of zeros: one bit and scales of zero
  packed.scales = weight.scales.expand({weight.integers.size(0)}).reshape({-1, 1}).contiguous();
  const torch::Tensor values = (weight.integers.to(torch::kFloat32) * packed.scales).contiguous();
  const torch::Tensor wanted = layer.Values().contiguous();
  if (std::memcmp(values.data_ptr(), wanted.data_ptr(), wanted.nbytes()) != 0) return std::nullopt;
  packed.words = Words(weight.integers, packed.bits);
  packed.shape = torch::tensor(weight.integers.sizes().vec(), torch::kInt64);
  return packed;
}

nlohmann::ordered_json ConfigGroup(int bits, const std::vector<std::string>& targets) {
  return {{"targets", targets},
          {"weights",
           {{"num_bits", bits},
            {"type", "int"},
            {"symmetric", true},
            {"group_size", nullptr},
            {"strategy", "channel"},
            {"block_structure", nullptr},
            {"dynamic", false},
            {"actorder", nullptr},
            {"observer", nullptr},
            {"observer_kwargs", nlohmann::ordered_json::object()}}},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", "pack-quantized"}};
}

}  // namespace

// Every width of the grid zero has words of its own; a layer of zeros would take a bit, the grid half one more. The
// schema calls all of them symmetric, which kernels may take for scales above zero.
HeldLayer CompressedTensorsHolds(const Layer& layer) {
  const ConsumerLimits limits{
      .zero = {2, 3, 4, 5, 6, 7, 8}, .half = {}, .negative_scales = false, .activations = false};
  if (layer.kind != "linear" || layer.shape.size() != 2 || layer.output_dim != 0 || ModuleOf(layer.parameter).empty()) {
    return {limits, "compressed-tensors packs weights [out, in] of linear layers"};
  }
  return {limits, ""};
}

void ExportCompressedTensors(const ExportInputs& inputs, const ExportFiles& files) {
  const torch::NoGradGuard no_grad;
  const QuantizedNetwork& network = inputs.network;
  StateDict state;
  std::map<int, std::vector<std::string>> targets;  // by width
  std::vector<std::string> ignored;
  const auto add_layer = [&](const QuantizedLayer& layer, const std::string& parameter) {
    const std::string module = ModuleOf(parameter);
    const bool linear = !module.empty() && IsLinearInPlan(inputs.plan, layer.name);
    const auto packed = linear ? PackedAs(layer) : std::nullopt;
    if (!packed) {
      state.Add(parameter, layer.Values());
      if (!module.empty()) ignored.push_back(module);
      return;
    }
    state.Add(module + ".weight_packed", packed->words);
    state.Add(module + ".weight_scale", packed->scales);
    state.Add(module + ".weight_shape", packed->shape);
    targets[packed->bits].push_back(module);
  };
  const auto is_attribute = [](const std::string& path) { return path.find_first_of(" [") == std::string::npos; };
  for (const QuantizedLayer& layer : network.layers) add_layer(layer, layer.parameter);
  for (const auto& [path, value] : network.others) {
    if (is_attribute(path)) state.Add(path, value);
  }
  for (const auto& [path, source] : network.tied) {  // under every name: loaders expect all of them
    for (const QuantizedLayer& layer : network.layers) {
      if (layer.parameter == source) add_layer(layer, path);
    }
    for (const auto& [other, value] : network.others) {
      if (other == source && is_attribute(path)) state.Add(path, value);
    }
  }
  std::set<std::string> planned;
  for (const QuantizedLayer& layer : network.layers) planned.insert(layer.name);
  for (const PlanLayer& layer : inputs.plan.layers) {
    if (planned.count(layer.name) == 0) ignored.push_back(layer.name);
  }
  if (targets.empty()) {
    throw Error(
        ErrorKind::kData,
        "compressed-tensors: no layer can be packed, it takes linear layers [out, in] of up to 8 bits; export --to "
        "packed or onnx");
  }
  nlohmann::ordered_json groups = nlohmann::ordered_json::object();
  for (const auto& [bits, names] : targets) groups[fmt::format("group_{}", groups.size())] = ConfigGroup(bits, names);
  const nlohmann::ordered_json config = {{"quantization_config",
                                          {{"quant_method", "compressed-tensors"},
                                           {"format", "pack-quantized"},
                                           {"quantization_status", "compressed"},
                                           {"global_compression_ratio", nullptr},
                                           {"kv_cache_scheme", nullptr},
                                           {"config_groups", groups},
                                           {"ignore", ignored}}},
                                         {"torch_dtype", "float32"}};
  WriteFileAtomically(files.second, JsonText(config, 2) + "\n");
  WriteFileAtomically(files.first, state.File({{"format", "pt"}, {"plan", network.plan}}));
}

}  // namespace bitplan
