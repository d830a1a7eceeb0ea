// The C files, compiled and run.
#include <cstdlib>
#include <fstream>
#include <limits>

#include "bitplan/core/error.h"
#include "exporters/codes.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::RandomCodes;
using testing::SameBits;

constexpr char kStrict[] = " -std=c99 -Wall -Wextra -Werror -pedantic -O1 ";

// A program that unpacks every weight into standard output.
constexpr char kPrintsWeights[] = R"(#include "mine.h"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
  int w;
  for (w = 0; w < mine_count; ++w) {
    const uint32_t size = mine_size(&mine_weights[w]);
    float *values = malloc(size * sizeof(float));
    mine_unpack(&mine_weights[w], values);
    if (fwrite(values, sizeof(float), size, stdout) != size) return 1;
    free(values);
  }
  return 0;
}
)";

bool Runs(const std::string& command) { return std::system(command.c_str()) == 0; }

class CFolder {
 public:
  explicit CFolder(const QuantizedNetwork& network) {
    const Plan plan;
    FindExporter("c").write({network, plan, folder_ / "none"},
                            {.first = folder_ / "mine.c", .second = folder_ / "mine.h", .name = "mine.c"});
  }
  void Write(const std::string& name, const std::string& text) const { std::ofstream(folder_ / name) << text; }
  [[nodiscard]] std::string Read(const std::string& name) const { return ReadFile(folder_ / name, "file"); }
  [[nodiscard]] bool Compiles(const std::string& main, const std::string& compiler = "cc",
                              const std::string& runner = "") const {
    Write("main.c", main);
    return Runs("cd '" + folder_.folder().string() + "' && " + compiler + kStrict + "mine.c main.c -o run 2> log && " +
                runner + " ./run > out");
  }

 private:
  Scratch folder_;
};

QuantizedNetwork ForFirmware() {
  QuantizedNetwork network = testing::EveryWidth({5, 3, 2, 2}, 0);
  for (const QuantizedLayer& layer : testing::EveryWidth({7, 9}, 1).layers) {
    network.layers.push_back({"t" + layer.name, "t" + layer.parameter, layer.blocks});
  }
  for (const int dim : {0, 1}) {
    std::vector<std::int64_t> one = {4, 6}, two = {4, 6}, three = {4, 6};
    one[static_cast<std::size_t>(dim)] = 2;
    two[static_cast<std::size_t>(dim)] = 1;
    three[static_cast<std::size_t>(dim)] = 3;
    network.layers.push_back({"blocks",
                              fmt::format("blocks.weight{}", dim),
                              {RandomCodes(3, 0.5F, one, dim, true), RandomCodes(0, 0.0F, two, dim, true),
                               RandomCodes(7, 0.0F, three, dim, false)}});
  }
  return network;
}

void CheckWeights(const std::string& bytes, const QuantizedNetwork& network) {
  std::size_t at = 0;
  for (const QuantizedLayer& layer : network.layers) {
    INFO(layer.parameter << ", " << layer.blocks[0].bits << " bits, offset " << layer.blocks[0].offset);
    const torch::Tensor values = layer.Values().contiguous();
    REQUIRE(at + values.nbytes() <= bytes.size());
    CHECK(std::memcmp(bytes.data() + at, values.data_ptr(), values.nbytes()) == 0);
    at += values.nbytes();
  }
  CHECK(at == bytes.size());
}

}  // namespace

TEST_CASE("the C files compile as strict C99 without a warning and unpack every width and grid bit for bit") {
  torch::manual_seed(5);
  const QuantizedNetwork network = ForFirmware();
  const CFolder folder(network);
  const bool ran = folder.Compiles(kPrintsWeights);
  INFO(folder.Read("log"));
  REQUIRE(ran);
  CheckWeights(folder.Read("out"), network);
}

TEST_CASE("the C files unpack the same weights on an Arm processor") {
  if (!Runs("command -v arm-none-eabi-gcc qemu-arm > /dev/null 2>&1")) {
    WARN("no arm-none-eabi-gcc or qemu-arm: not tried");
    return;
  }
  torch::manual_seed(6);
  const QuantizedNetwork network = ForFirmware();
  const CFolder folder(network);
  const bool ran =
      folder.Compiles(kPrintsWeights, "arm-none-eabi-gcc -mcpu=cortex-a9 --specs=rdimon.specs", "qemu-arm");
  INFO(folder.Read("log"));
  REQUIRE(ran);
  CheckWeights(folder.Read("out"), network);
}

TEST_CASE("everything else stands in the C files in its own type, with every number exact, also under a second name") {
  QuantizedNetwork network;
  network.layers.push_back({"fc", "fc.weight", {RandomCodes(4, 0.0F, {2, 2}, 0, true)}});
  network.others = {{"fc.bias", torch::tensor({0.1F, -0.0F, 1e-45F, -0x1.fffffcp127F})},
                    {"mask", torch::tensor({-std::numeric_limits<float>::infinity(), 1.0F})},
                    {"fc_bias", torch::tensor({std::numeric_limits<std::int64_t>::min(), std::int64_t{7}})},
                    {"steps", torch::tensor(3, torch::kInt64)},
                    {"constant 0", torch::tensor({true, false})},
                    {"double", torch::tensor({1.0 / 3.0}, torch::kFloat64)},
                    {"empty", torch::empty({0})}};
  network.tied = {{"head.bias", "fc.bias"}, {"head.weight", "fc.weight"}};
  const CFolder folder(network);
  const bool ran = folder.Compiles(R"(#include "mine.h"
#include <math.h>
int main(void) {
  if (mine_fc_bias[0] != 0.1f || mine_fc_bias[1] != 0.0f || !signbit(mine_fc_bias[1])) return 1;
  if (mine_fc_bias[2] != 0x1p-149f || mine_fc_bias[3] != -0x1.fffffcp127f) return 2;
  if (!isinf(mine_mask[0]) || mine_mask[0] > 0) return 3;
  if (mine_fc_bias_2[0] != INT64_MIN || mine_fc_bias_2[1] != 7 || mine_steps[0] != 3) return 4;
  if (mine_constant_0[0] != 1 || mine_constant_0[1] != 0 || mine_double[0] != 1.0 / 3.0) return 5;
  return &mine_head_bias[0] == &mine_fc_bias[0] && mine_head_weight == mine_fc_weight ? 0 : 6;
}
)");
  INFO(folder.Read("log"));
  CHECK(ran);
}

TEST_CASE("a C file with the header of another export does not compile") {
  QuantizedNetwork network;
  network.layers.push_back({"fc", "fc.weight", {RandomCodes(4, 0.0F, {2, 2}, 0, true)}});
  const CFolder folder(network);
  REQUIRE(folder.Compiles(kPrintsWeights));
  network.layers[0].blocks[0].codes[0][0] = 3;
  network.layers[0].blocks[0].codes[0][1] = -3;
  folder.Write("mine.h", CFolder(network).Read("mine.h"));
  CHECK_FALSE(folder.Compiles(kPrintsWeights));
  CHECK_THAT(folder.Read("log"), ContainsSubstring("another export"));
}

TEST_CASE("a tensor of a type that C99 does not have is refused by name") {
  QuantizedNetwork network;
  network.others = {{"fc.bias", torch::ones({2}, torch::kFloat16)}};
  CHECK_THROWS_WITH(testing::Exported("c", network), ContainsSubstring("'fc.bias'") && ContainsSubstring("Half"));
}

}  // namespace bitplan
