// GGUF, read back as docs/gguf.md of ggml describes it, with the blocks as its dequantize_row functions read them.
#include "bitplan/core/error.h"
#include "exporters/codes.h"
#include "exporters/gguf_reader.h"
#include "support/catch_torch.h"

namespace bitplan {

using testing::Gguf;
using testing::kGgufF32;
using testing::ReadGguf;
using testing::ValuesIn;
using testing::WeightIn;

TEST_CASE(
    "the blocks of a GGUF file, times the scales beside them, are the weights of every width and grid bit for bit") {
  torch::manual_seed(31);
  for (const std::int64_t columns : {256, 128, 96, 40}) {
    const QuantizedNetwork network = testing::EveryWidth({3, columns}, 0);
    const Gguf gguf = ReadGguf(testing::Exported("gguf", network).first);
    CHECK(gguf.texts.at("general.architecture") == "bitplan");
    CHECK(gguf.numbers.at("general.quantization_version") == 2);
    CHECK(gguf.numbers.at("general.alignment") == 32);
    for (const QuantizedLayer& layer : network.layers) {
      const QuantizedTensor& block = layer.blocks[0];
      const bool half = block.offset != 0.0F, super = columns == 256;
      INFO(columns << " columns, " << block.bits << " bits, offset " << block.offset);
      CHECK(testing::SameBits(WeightIn(gguf, layer.parameter), layer.Values()));
      const int zero_types[] = {
          super ? 10 : 2, super ? 10 : 2, super ? 10 : 2, super ? 11 : 2, 2, 6, super ? 14 : 8, 8, 8};
      const int half_types[] = {0, columns % 128 == 0 ? 41 : 2, super ? 10 : 2, 2, 3, 7, 8, 8, kGgufF32};
      const int type = columns % 32 != 0 ? kGgufF32 : half ? half_types[block.bits] : zero_types[block.bits];
      CHECK(gguf.tensors.at(layer.parameter).type == type);
    }
  }
}

TEST_CASE("scales that float16 holds stand in the blocks of a GGUF file, so that it needs no tensor beside them") {
  torch::manual_seed(32);
  QuantizedNetwork network = testing::EveryWidth({4, 256}, 0);
  for (QuantizedLayer& layer : network.layers) {
    QuantizedTensor& block = layer.blocks[0];
    if (block.bits > 0)
      block.scales = torch::tensor({0.375F, 2.0F, 1.0F, 0.001953125F}).slice(0, 0, block.scales.numel());
  }
  const Gguf gguf = ReadGguf(testing::Exported("gguf", network).first);
  for (const QuantizedLayer& layer : network.layers) {
    INFO(layer.blocks[0].bits << " bits, offset " << layer.blocks[0].offset);
    CHECK(gguf.tensors.count(layer.parameter + ".scale") == 0);
    CHECK(testing::SameBits(WeightIn(gguf, layer.parameter), layer.Values()));
  }
}

TEST_CASE("what is no row of blocks is float32 in a GGUF file, and names that ggml cannot hold are refused") {
  torch::manual_seed(33);
  QuantizedNetwork network;
  network.layers = {{"conv", "conv.weight", {testing::RandomCodes(4, 0.0F, {32, 3, 3, 3}, 0, true)}},
                    {"mm", "mm.weight", {testing::RandomCodes(4, 0.0F, {32, 64}, 1, true)}}};
  network.others = {
      {"bias", torch::randn({32})}, {"steps", torch::tensor(3, torch::kInt64)}, {"none", torch::empty({0})}};
  const Gguf gguf = ReadGguf(testing::Exported("gguf", network).first);
  CHECK(gguf.tensors.size() == 4);
  for (const QuantizedLayer& layer : network.layers) {
    CHECK(gguf.tensors.at(layer.parameter).type == kGgufF32);
    CHECK(testing::SameBits(WeightIn(gguf, layer.parameter), layer.Values()));
  }
  CHECK(testing::SameBits(ValuesIn(gguf.tensors.at("bias")), network.others[0].second));
  CHECK(gguf.tensors.at("steps").shape == std::vector<std::int64_t>{1});
  network.others.emplace_back(std::string(64, 'n'), torch::randn({2}));
  CHECK_THROWS_WITH(testing::Exported("gguf", network), ContainsSubstring("64 characters") && ContainsSubstring("63"));
  network.others.back() = {"five", torch::randn({1, 1, 1, 1, 2})};
  CHECK_THROWS_WITH(testing::Exported("gguf", network), ContainsSubstring("'five'") && ContainsSubstring("dimensions"));
}

}  // namespace bitplan
