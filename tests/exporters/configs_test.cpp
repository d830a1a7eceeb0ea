// Configurations for tools that round by themselves, and encodings of those that are told how.
#include <cmath>
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "exporters/codes.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

PlanLayer LayerWith(const std::string& name, const std::string& kind, int bits) {
  PlanLayer layer;
  layer.name = name;
  layer.kind = kind;
  layer.bits = bits;
  return layer;
}

Plan MixedPlan() {
  Plan plan;
  plan.layers = {LayerWith("conv", "conv2d", 5), LayerWith("fc", "linear", 3), LayerWith("head", "linear", 32)};
  return plan;
}

}  // namespace

TEST_CASE("Model Optimizer gets every quantizer switched off, then the width of each weight of the plan") {
  Plan plan = MixedPlan();
  const auto json = nlohmann::json::parse(testing::Exported("modelopt", {}, plan).first);
  CHECK(json == nlohmann::json::parse(R"({"algorithm": "max", "quant_cfg": [
    {"quantizer_name": "*", "enable": false},
    {"quantizer_name": "conv.weight_quantizer", "cfg": {"num_bits": 5, "axis": 0}},
    {"quantizer_name": "fc.weight_quantizer", "cfg": {"num_bits": 3, "axis": 0}}]})"));
  plan.quantizer.granularity = "tensor";
  const auto one = nlohmann::json::parse(testing::Exported("modelopt", {}, plan).first);
  CHECK(one.at("quant_cfg")[1].at("cfg").at("axis").is_null());
  for (const int bits : {0, 1}) {
    plan.layers[1].bits = bits;
    CHECK_THROWS_WITH(testing::Exported("modelopt", {}, plan),
                      ContainsSubstring("layer fc") && ContainsSubstring("allocate.bits"));
  }
}

TEST_CASE("AutoRound gets linear layers by name, and a convolution that it would not round is refused") {
  Plan plan = MixedPlan();
  CHECK_THROWS_WITH(testing::Exported("autoround", {}, plan),
                    ContainsSubstring("layer conv is a conv2d") && ContainsSubstring("allocate.exclude"));
  plan.layers[0].bits = 32;
  const auto json = nlohmann::json::parse(testing::Exported("autoround", {}, plan).first);
  CHECK(json == nlohmann::json::parse(R"({
    "fc": {"bits": 3, "group_size": -1, "sym": true, "data_type": "int", "act_bits": 16},
    "head": {"bits": 16, "data_type": "float", "act_bits": 16}})"));
}

TEST_CASE("tools that know a weight by its module get none of recurrent layers and in-projections") {
  QuantizedNetwork network;
  for (const char* name : {"lstm.weight_ih_l0", "attention.in_proj_weight"}) {
    network.layers = {{name, name, {testing::RandomCodes(4, 0.0F, {3, 2}, 0, false)}}};
    Plan plan;
    plan.layers = {LayerWith(name, "linear", 4)};
    for (const char* format : {"modelopt", "autoround", "hls4ml"}) {
      INFO(format);
      CHECK_THROWS_WITH(testing::Exported(format, network, plan),
                        ContainsSubstring(std::string(format) + ": layer " + name + " is no `weight` of a module") &&
                            ContainsSubstring("allocate.exclude"));
    }
    CHECK_NOTHROW(testing::Exported("aimet", network, plan));
  }
}

TEST_CASE("AIMET's encodings hold the grid of every weight: scale * (integer + offset), integers from 0") {
  torch::manual_seed(41);
  Plan plan;
  const QuantizedNetwork network = testing::EveryWidth({5, 7}, 0, &plan);
  plan.layers.push_back(LayerWith("head", "linear", 32));
  const auto json = nlohmann::json::parse(testing::Exported("aimet", network, plan).first);
  CHECK(json.at("version") == "1.0.0");
  CHECK(json.at("excluded_layers") == std::vector<std::string>{"head"});
  REQUIRE(json.at("param_encodings").size() == network.layers.size());
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const auto& encoding = json.at("param_encodings")[l];
    const QuantizedTensor& block = network.layers[l].blocks[0];
    INFO(block.bits << " bits, offset " << block.offset);
    const int bits = encoding.at("bw").get<int>();
    CHECK(bits == std::max(block.bits + (block.offset != 0.0F ? 1 : 0), 2));
    CHECK(encoding.at("name") == network.layers[l].parameter);
    const auto scales = encoding.at("scale").get<std::vector<float>>();
    const auto offsets = encoding.at("offset").get<std::vector<int>>();
    REQUIRE(scales.size() == offsets.size());
    CHECK(encoding.at("enc_type") == (scales.size() == 1 ? "PER_TENSOR" : "PER_CHANNEL"));
    const torch::Tensor values = network.layers[l].Values();
    bool symmetric = true;
    for (std::int64_t i = 0; i < values.numel(); ++i) {
      const std::size_t channel = scales.size() == 1 ? 0 : static_cast<std::size_t>(i / values.size(1));
      CHECK(scales[channel] > 0.0F);
      symmetric = symmetric && offsets[channel] == -(1 << (bits - 1));
      const float value = values.view(-1)[i].item<float>();
      const float integer = std::nearbyint(value / scales[channel]) - static_cast<float>(offsets[channel]);
      CHECK(integer >= 0.0F);
      CHECK(integer <= static_cast<float>((1 << bits) - 1));
      CHECK((integer + static_cast<float>(offsets[channel])) * scales[channel] == value);
    }
    CHECK(encoding.at("is_sym") == symmetric);
  }
}

TEST_CASE("hls4ml's fixed<W,I> covers the weights, and holds them where their scale is one power of two") {
  QuantizedNetwork network;
  network.layers = {{"layer1.0.conv", "layer1.0.conv.weight", {testing::RandomCodes(4, 0.0F, {3, 2}, 0, false)}},
                    {"fc", "fc.weight", {testing::RandomCodes(3, 0.5F, {3, 2}, 0, false)}},
                    {"0", "0.weight", {testing::RandomCodes(1, 0.5F, {3, 2}, 0, false)}},
                    {"lowSide", "lowSide.weight", {testing::RandomCodes(4, 0.0F, {3, 2}, 0, false)}},
                    {"none", "none.weight", {testing::RandomCodes(0, 0.0F, {3, 2}, 0, false)}}};
  network.layers[0].blocks[0].scales.fill_(0.25F);
  network.layers[1].blocks[0].scales.fill_(0.5F);
  network.layers[2].blocks[0].scales.fill_(2.0F);
  network.layers[3].blocks[0].scales.fill_(0.25F);
  network.layers[3].blocks[0].codes.clamp_max_(0);
  const std::string yaml = testing::Exported("hls4ml", network).first;
  // 4 bits in steps of 1/4: -2 .. 1.75; odd quarters of 3 bits: -1.75 .. 1.75 in 4 bits; signs: -1 and 1 in steps of 1.
  CHECK(yaml == R"(HLSConfig:
  Model:
    Precision: fixed<16,6>
    ReuseFactor: 1
    Strategy: Latency
  LayerName:
    layer1_0_conv:
      Precision:
        weight: fixed<4,2>
    fc:
      Precision:
        weight: fixed<4,2>
    _0:
      Precision:
        weight: fixed<2,2>
    low_side:
      Precision:
        weight: fixed<4,2>
    none:
      Precision:
        weight: fixed<2,1>
)");
}

}  // namespace bitplan
