// What an exporter says that its format holds, against what it writes.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "bitplan/exporters/exporter.h"
#include "exporters/codes.h"
#include "exporters/gguf_reader.h"
#include "exporters/onnx_weights.h"
#include "exporters/onnx_weights_reader.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

Layer LinearLayer(const std::string& name, const std::vector<std::int64_t>& shape) {
  Layer layer;
  layer.name = name;
  layer.parameter = name + ".weight";
  layer.kind = "linear";
  layer.shape = shape;
  return layer;
}

// Bits that a file of the format spends on a code of every layer; 0: as much as of float32.
std::map<std::string, int> SpentBits(const std::string& format, const QuantizedNetwork& network, const Plan& plan) {
  std::map<std::string, int> spent;
  if (format == "onnx" || format == "qonnx") {
    for (const QuantizedLayer& layer : network.layers) {
      const IntegerWeight weight = IntegersOf(layer);
      const bool bipolar = weight.odd && weight.bits == 2;
      spent[layer.name] = weight.zeros       ? 0
                          : format == "onnx" ? testing::BitsOfOnnx(static_cast<int>(weight.type))
                          : bipolar          ? 1
                                             : std::max(weight.bits, 2);
    }
    return spent;
  }
  const testing::Written written = testing::Exported(format, network, plan);
  if (format == "gguf") {
    // The types that hold an offset too take two bytes more than the others of their width.
    const std::map<int, int> bits_of_type = {{41, 1}, {10, 2}, {11, 3}, {2, 4}, {6, 5}, {14, 6}, {8, 8}};
    const testing::Gguf file = testing::ReadGguf(written.first);
    for (const auto& [name, tensor] : file.tensors) {
      if (name.find(".scale") != std::string::npos) continue;
      const auto bits = bits_of_type.find(tensor.type);
      spent[name.substr(0, name.find('.'))] = bits == bits_of_type.end() ? 0 : bits->second;
    }
    return spent;
  }
  if (format == "aimet") {
    const auto json = nlohmann::json::parse(written.first);
    for (const auto& one : json.at("param_encodings")) {
      const std::string name = one.at("name");
      spent[name.substr(0, name.find('.'))] = one.at("bw");
    }
    return spent;
  }
  const auto config = nlohmann::json::parse(written.second).at("quantization_config");
  for (const auto& [name, group] : config.at("config_groups").items()) {
    for (const auto& target : group.at("targets")) spent[target] = group.at("weights").at("num_bits");
  }
  return spent;
}

}  // namespace

TEST_CASE("a width that a format says it holds takes so many bits in its file, and one that it does not takes more") {
  torch::manual_seed(51);
  for (const std::int64_t columns : {256, 128, 96}) {
    Plan plan;
    QuantizedNetwork network = testing::EveryWidth({3, columns}, 0, &plan);
    for (const std::string format : {"onnx", "qonnx", "compressed-tensors", "gguf", "aimet"}) {
      const auto spent = SpentBits(format, network, plan);
      for (const QuantizedLayer& layer : network.layers) {
        const QuantizedTensor& block = layer.blocks.front();
        if (block.bits == 0 || (block.bits == 1 && block.offset == 0.0F)) continue;  // no quantizer makes the second
        const HeldLayer held = HeldBy(FindExporter(format), LinearLayer(layer.name, {3, columns}));
        INFO(format << ", " << columns << " columns, " << block.bits << " bits, grid " << block.grid());
        REQUIRE(held.reason.empty());
        const auto found = spent.find(layer.name);
        const int bits = found == spent.end() ? 0 : found->second;
        const bool exact = bits == block.bits;
        // Q2_K holds odd halves with an offset that float16 holds of some scales only.
        const bool by_luck = format == "gguf" && block.bits == 2 && block.offset != 0.0F && columns == 256;
        if (!by_luck) CHECK(Holds(held.limits, block.bits, block.grid()) == exact);
        if (by_luck) CHECK_FALSE(Holds(held.limits, block.bits, block.grid()));
      }
    }
  }
}

TEST_CASE("a format gives a reason for every layer that it has no place for") {
  const auto reason = [](const std::string& format, const Layer& layer) {
    return HeldBy(FindExporter(format), layer).reason;
  };
  Layer conv = LinearLayer("conv", {8, 4, 3, 3}), turned = LinearLayer("mm", {64, 32}),
        odd = LinearLayer("fc", {10, 500});
  conv.kind = "conv2d";
  turned.output_dim = 1;
  for (const std::string format : {"gguf", "compressed-tensors", "autoround"}) {
    CHECK_THAT(reason(format, conv), ContainsSubstring(format));
    CHECK(reason(format, LinearLayer("fc", {64, 96})).empty());
  }
  CHECK_THAT(reason("gguf", odd), ContainsSubstring("500"));
  CHECK(reason("compressed-tensors", odd).empty());
  CHECK_FALSE(reason("gguf", turned).empty());
  CHECK_FALSE(reason("compressed-tensors", turned).empty());
  CHECK_FALSE(reason("autoround", odd).empty());
  CHECK_FALSE(reason("gguf", LinearLayer(std::string(54, 'n'), {32, 32})).empty());
  CHECK(reason("gguf", LinearLayer(std::string(50, 'n'), {32, 32})).empty());
  for (const std::string format : {"onnx", "qonnx", "aimet", "packed", "c", "json", "torchscript"}) {
    for (const Layer& layer : {conv, turned, odd}) CHECK(reason(format, layer).empty());
  }
}

}  // namespace bitplan
