// compressed-tensors, read back as its documentation describes it; shares nothing with the exporter.
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "exporters/codes.h"
#include "exporters/compressed_tensors_reader.h"
#include "io/safetensors.h"
#include "support/catch_torch.h"

namespace bitplan {

using testing::Decompressed;
using testing::NumbersIn;

TEST_CASE("pack-quantized words unpack to every weight bit for bit, and the config names each packed module once") {
  torch::manual_seed(21);
  Plan plan;
  QuantizedNetwork network = testing::EveryWidth({5, 45}, 0, &plan);
  network.others = {{"w0.bias", torch::randn({5})}, {"steps", torch::tensor(3, torch::kInt64)}};
  network.plan = "bitplan: 1\n";
  const auto written = testing::Exported("compressed-tensors", network, plan);
  const safetensors::File file = safetensors::Parse(written.first);
  const auto json = nlohmann::json::parse(written.second);
  CHECK(json.at("torch_dtype") == "float32");
  const auto& config = json.at("quantization_config");
  CHECK(config.at("quant_method") == "compressed-tensors");
  CHECK(config.at("format") == "pack-quantized");
  CHECK(config.at("quantization_status") == "compressed");
  std::map<std::string, int> width_of;
  for (const auto& [name, group] : config.at("config_groups").items()) {
    CHECK(name.rfind("group_", 0) == 0);
    const auto& weights = group.at("weights");
    CHECK(weights.at("type") == "int");
    CHECK(weights.at("symmetric") == true);
    CHECK(weights.at("strategy") == "channel");
    CHECK(weights.at("dynamic") == false);
    CHECK(group.at("input_activations").is_null());
    for (const auto& target : group.at("targets")) {
      CHECK(width_of.emplace(target.get<std::string>(), weights.at("num_bits").get<int>()).second);
    }
  }
  std::size_t left = 0;
  for (const QuantizedLayer& layer : network.layers) {
    const QuantizedTensor& block = layer.blocks[0];
    INFO(layer.name << ", " << block.bits << " bits, offset " << block.offset);
    if (block.bits == 8 && block.offset != 0.0F) {  // nine bits: float32
      ++left;
      CHECK(width_of.count(layer.name) == 0);
      CHECK(config.at("ignore").dump().find('"' + layer.name + '"') != std::string::npos);
      const auto& whole = file.tensors.at(layer.parameter);
      CHECK(std::memcmp(whole.bytes.data(), layer.Values().data_ptr(), whole.bytes.size()) == 0);
      continue;
    }
    CHECK(width_of.at(layer.name) == std::max(block.bits + (block.offset != 0.0F ? 1 : 0), 1));
    CHECK(testing::SameBits(Decompressed(file, layer.name, width_of.at(layer.name)), layer.Values()));
    CHECK(file.tensors.count(layer.parameter) == 0);
  }
  CHECK(left == 2);
  CHECK(config.at("ignore").size() == left);
  CHECK(file.metadata.at("plan") == network.plan);
  CHECK(NumbersIn<float>(file.tensors.at("w0.bias")).size() == 5);
}

TEST_CASE("compressed-tensors keeps convolutions and x @ W in float32, and a weight of two names stands under both") {
  torch::manual_seed(22);
  QuantizedNetwork network;
  network.layers = {{"conv", "conv.weight", {testing::RandomCodes(4, 0.0F, {2, 3, 3, 3}, 0, true)}},
                    {"mm", "mm.weight", {testing::RandomCodes(4, 0.0F, {4, 6}, 1, true)}},
                    {"fc", "fc.weight", {testing::RandomCodes(3, 0.0F, {4, 6}, 0, true)}}};
  network.tied = {{"head.weight", "fc.weight"}};
  const auto written = testing::Exported("compressed-tensors", network);
  const safetensors::File file = safetensors::Parse(written.first);
  for (const std::size_t l : {0U, 1U}) {
    const auto& whole = file.tensors.at(network.layers[l].parameter);
    CHECK(std::memcmp(whole.bytes.data(), network.layers[l].Values().data_ptr(), whole.bytes.size()) == 0);
  }
  for (const char* module : {"fc", "head"}) {
    CHECK(testing::SameBits(Decompressed(file, module, 3), network.layers[2].Values()));
  }
  const auto config = nlohmann::json::parse(written.second).at("quantization_config");
  CHECK(config.at("config_groups").at("group_0").at("targets") == std::vector<std::string>{"fc", "head"});
  CHECK(config.at("ignore") == std::vector<std::string>{"conv", "mm"});
  network.layers.resize(2);
  network.tied.clear();
  CHECK_THROWS_WITH(testing::Exported("compressed-tensors", network), ContainsSubstring("no layer can be packed"));
}

}  // namespace bitplan
