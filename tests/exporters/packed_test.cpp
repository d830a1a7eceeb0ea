// The packed file, and everything that reads or writes a quantized network as numbers.
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "bitplan/core/problem.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/files.h"
#include "bitplan/models/architectures.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/ptq/compensate.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/quantizers/packing.h"
#include "exporters/codes.h"
#include "io/scratch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::RandomCodes;
using testing::SameBits;

// Every network that a plan can make of this one: rounded, corrected, all forms of weights that there are.
AppliedPlan Quantized(const Network& network, const std::vector<int>& bits,
                      const std::string& granularity = "channel") {
  QuantizerOptions options;
  options.granularity = granularity;
  options.batch_norm = network.batch_norms.empty() ? "off" : "transfer";
  options.output_correction = "fit";
  AppliedPlan applied = ApplyBits(network, bits, {}, options, {});
  const Dataset data = testing::RandomImages(network, 60);
  CompensateRounding(network, applied, bits, options, data.images, SilentSink());
  (void)CorrectNetwork(network, applied, options, data.images, data, Normalizer({}), SilentSink());
  return applied;
}

QuantizedNetwork SmallFile() {
  const Network network = testing::ConvBatchNorm();
  const AppliedPlan applied = ApplyBits(network, {3, 2, 32}, {}, {}, {});
  QuantizedNetwork small = DescribeQuantized(network, applied.module, applied.weights);
  small.plan = "bitplan: 1\n";
  return small;
}

std::string MessageOf(const std::string& bytes) {
  try {
    (void)ParseQuantizedNetwork(bytes, "file.safetensors");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kData);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("code i takes the bits i*b to i*b + b - 1, from the lowest bit of the first byte on") {
  for (int bits = 1; bits <= 8; ++bits) {
    for (const std::int64_t count : {1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000}) {
      INFO(bits << " bits, " << count << " codes");
      const torch::Tensor codes = torch::randint(0, 1 << bits, {count}, torch::kInt64).to(torch::kUInt8);
      std::string expected(static_cast<std::size_t>((count * bits + 7) / 8), '\0');
      for (std::int64_t i = 0; i < count; ++i) {
        for (int b = 0; b < bits; ++b) {
          if ((codes[i].item<int>() >> b & 1) != 0)
            expected[(i * bits + b) / 8] |= static_cast<char>(1 << (i * bits + b) % 8);
        }
      }
      REQUIRE(PackedBytes(count, bits) == static_cast<std::int64_t>(expected.size()));
      std::string packed(expected.size(), '\0');
      PackBits(codes.data_ptr<std::uint8_t>(), count, bits, reinterpret_cast<std::uint8_t*>(packed.data()));
      CHECK(packed == expected);
      torch::Tensor back = torch::zeros_like(codes);
      UnpackBits(reinterpret_cast<const std::uint8_t*>(packed.data()), count, bits, back.data_ptr<std::uint8_t>());
      CHECK(torch::equal(back, codes));
    }
  }
}

TEST_CASE("codes and scales come back from the packed file at every width, on both grids, per channel and per layer") {
  torch::manual_seed(1);
  QuantizedNetwork network;
  for (int bits = 0; bits <= 8; ++bits) {
    for (const float offset : {0.0F, 0.5F}) {
      for (const bool per_channel : {true, false}) {
        const std::string name = std::to_string(network.layers.size());
        network.layers.push_back({name, name + ".weight", {RandomCodes(bits, offset, {5, 3, 3, 3}, 0, per_channel)}});
        network.layers.push_back({name + "t", name + "t.weight", {RandomCodes(bits, offset, {7, 9}, 1, per_channel)}});
      }
    }
  }
  const QuantizedNetwork back = ParseQuantizedNetwork(PackNetwork(network), "file");
  REQUIRE(back.layers.size() == network.layers.size());
  for (std::size_t l = 0; l < back.layers.size(); ++l) {
    const QuantizedTensor &is = back.layers[l].blocks.at(0), &was = network.layers[l].blocks.at(0);
    INFO("layer " << l << ", " << was.bits << " bits, offset " << was.offset);
    CHECK(back.layers[l].parameter == network.layers[l].parameter);
    CHECK(is.bits == was.bits);
    CHECK(is.offset == was.offset);
    CHECK(is.channel_dim == was.channel_dim);
    CHECK(torch::equal(is.codes, was.codes));
    if (was.bits > 0) CHECK(SameBits(is.scales, was.scales));
    CHECK(SameBits(is.Values(), was.Values()));
    // The formula, the slow way.
    std::vector<std::int64_t> along(was.codes.dim(), 1);
    along[static_cast<std::size_t>(was.channel_dim)] = -1;
    CHECK(SameBits(was.Values(), was.scales.reshape(along) * (was.codes.to(torch::kFloat32) + was.offset)));
  }
}

TEST_CASE("blocks of output channels with widths of their own make one weight") {
  QuantizedNetwork network;
  network.layers.push_back({"conv",
                            "conv.weight",
                            {RandomCodes(3, 0.5F, {2, 3, 3, 3}, 0, true), RandomCodes(0, 0.0F, {1, 3, 3, 3}, 0, true),
                             RandomCodes(8, 0.0F, {4, 3, 3, 3}, 0, false)}});
  const QuantizedNetwork back = ParseQuantizedNetwork(PackNetwork(network), "file");
  CHECK(back.layers.at(0).shape() == std::vector<std::int64_t>{7, 3, 3, 3});
  CHECK(back.layers[0].blocks.size() == 3);
  CHECK(SameBits(back.layers[0].Values(), network.layers[0].Values()));
  CHECK(back.payload_bytes() == network.payload_bytes());
}

TEST_CASE("what the file takes for codes, scales and widths is what a plan counts as stored bytes") {
  for (int bits = 0; bits <= 8; ++bits) {
    for (const bool per_channel : {true, false}) {
      QuantizedNetwork network;
      network.layers.push_back({"fc", "fc.weight", {RandomCodes(bits, 0.5F, {11, 13}, 0, per_channel)}});
      Unit unit;
      unit.weights = 11 * 13;
      unit.scales = per_channel ? 11 : 1;
      CHECK(network.payload_bytes() * 8 == StoredBits(unit, bits));
      const std::string file = PackNetwork(network);
      std::uint64_t header = 0;
      std::memcpy(&header, file.data(), sizeof header);
      CHECK(static_cast<std::int64_t>(file.size() - 8 - header) == network.payload_bytes());
      CHECK(static_cast<std::int64_t>(file.size()) == PackedNetworkBytes(network));
    }
  }
}

TEST_CASE("weights of the packed file are those of the quantized network, bit for bit") {
  const Network small = testing::ConvBatchNorm();
  const Network lenet = DescribeNetwork(BuildArchitecture("lenet5-caffe", 3), "lenet5-caffe",
                                        FindArchitecture("lenet5-caffe").input_shape);
  const auto check = [](const Network& network, const std::vector<int>& bits, const std::string& granularity) {
    const AppliedPlan applied = Quantized(network, bits, granularity);
    const QuantizedNetwork stored = DescribeQuantized(network, applied.module, applied.weights);
    const std::string file = PackNetwork(stored);
    const QuantizedNetwork loaded = ParseQuantizedNetwork(file, "file");
    for (const QuantizedLayer& layer : loaded.layers) {
      INFO(layer.name);
      CHECK(SameBits(layer.Values(), GetTensor(applied.module, layer.parameter)));
    }
    for (const auto& [name, value] : loaded.others) CHECK(SameBits(value, GetTensor(applied.module, name)));
    torch::jit::Module rebuilt = CloneModule(network.module);
    CHECK(ModelHash(rebuilt) != ModelHash(applied.module));
    WriteWeights(loaded, rebuilt);
    CHECK(ModelHash(rebuilt) == ModelHash(applied.module));
    CHECK(static_cast<double>(file.size()) <=
          1.02 * static_cast<double>(stored.payload_bytes() + stored.float_bytes()) + 4096);
  };
  check(small, {2, 3, 1}, "channel");
  check(small, {8, 4, 2}, "tensor");
  check(small, {5, 0, 32}, "channel");
  check(lenet, {8, 4, 2, 8}, "channel");
}

TEST_CASE("a weight under two names is stored once, and the file says under which") {
  torch::manual_seed(3);
  torch::jit::Module module("tied");
  const torch::Tensor weight = torch::randn({6, 6});
  module.register_parameter("first", weight, false);
  module.register_parameter("second", weight, false);
  module.register_buffer("mask", torch::tensor({-std::numeric_limits<float>::infinity(), 0.0F}));
  module.register_buffer("steps", torch::tensor({7}, torch::kInt64));
  module.define(R"(
def forward(self, x):
  return torch.linear(torch.relu(torch.linear(x.flatten(1), self.first)), self.second) + self.mask[1] + self.steps
)");
  const Network network = DescribeNetwork(module, "tied", {1, 1, 6});
  REQUIRE(network.layers.size() == 1);
  const AppliedPlan applied = ApplyBits(network, {4}, {}, {}, {});
  const auto back =
      ParseQuantizedNetwork(PackNetwork(DescribeQuantized(network, applied.module, applied.weights)), "file");
  CHECK(back.tied == std::map<std::string, std::string>{{"second", "first"}});
  REQUIRE(back.others.size() == 2);
  torch::jit::Module rebuilt = CloneModule(network.module);
  WriteWeights(back, rebuilt);
  CHECK(SameBits(GetTensor(rebuilt, "second"), GetTensor(applied.module, "first")));
  CHECK(SameBits(GetTensor(rebuilt, "mask"), GetTensor(module, "mask")));
  CHECK(GetTensor(rebuilt, "steps").item<int>() == 7);
}

TEST_CASE("weights that are not those of the codes are refused") {
  const Network network = testing::ConvBatchNorm();
  AppliedPlan applied = ApplyBits(network, {3, 2, 4}, {}, {}, {});
  GetTensor(applied.module, "conv2.weight").view(-1)[5] += 1e-6;
  CHECK_THROWS_WITH(DescribeQuantized(network, applied.module, applied.weights),
                    ContainsSubstring("conv2") && ContainsSubstring("codes"));
}

TEST_CASE("a packed file that ends anywhere, or with a flipped bit anywhere, is refused in one line") {
  const std::string file = PackNetwork(SmallFile());
  REQUIRE(MessageOf(file).empty());
  for (std::size_t size = 0; size < file.size(); size += size < 200 || size + 200 > file.size() ? 1 : 7) {
    INFO(size);
    const std::string message = MessageOf(file.substr(0, size));
    REQUIRE_THAT(message, ContainsSubstring("quantized network file.safetensors cannot be read: "));
    CHECK(message.find('\n') == std::string::npos);
  }
  CHECK_FALSE(MessageOf(file + "x").empty());
  for (std::size_t at = 0; at < file.size(); ++at) {
    std::string damaged = file;
    damaged[at] = static_cast<char>(damaged[at] ^ 1 << at % 8);
    INFO("bit " << at % 8 << " of byte " << at);
    CHECK_FALSE(MessageOf(damaged).empty());
  }
}

TEST_CASE("a file that states a tensor twice, or a weight beside its codes, is refused") {
  QuantizedNetwork network = SmallFile();
  REQUIRE(MessageOf(PackNetwork(network)).empty());
  network.others.emplace_back("extra", torch::ones(3));
  REQUIRE(MessageOf(PackNetwork(network)).empty());
  network.others.emplace_back("extra", torch::zeros(3));
  CHECK_THAT(MessageOf(PackNetwork(network)), ContainsSubstring("'extra' twice"));
  network.others.back().first = network.layers.front().parameter;
  CHECK_THAT(MessageOf(PackNetwork(network)), ContainsSubstring("twice"));
}

TEST_CASE("a foreign or hostile file asks for no memory before its lengths are checked") {
  const auto file = [](const std::string& header, const std::string& body) {
    const std::uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + body;
  };
  CHECK_THAT(MessageOf("PK\3\4 a TorchScript archive, for example"), ContainsSubstring("no safetensors file"));
  CHECK_THAT(MessageOf(file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "abcd")),
             ContainsSubstring("something else"));
  CHECK_THAT(
      MessageOf(file(R"({"a":{"dtype":"F32","shape":[4000000000000],"data_offsets":[0,16000000000000]}})", "abcd")),
      ContainsSubstring("truncated"));
  CHECK_THAT(MessageOf(file(R"({"a":{"dtype":"F64","shape":[9000000000000000000,9],"data_offsets":[0,4]}})", "abcd")),
             ContainsSubstring("too large"));
  CHECK_THAT(MessageOf(file(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                            R"("b":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}})",
                            "abcd")),
             ContainsSubstring("overlap"));
  CHECK_THAT(MessageOf(file(R"({"a":{"dtype":"U8","shape":[-2],"data_offsets":[0,2]}})", "ab")),
             ContainsSubstring("no whole number"));
  CHECK_THAT(MessageOf(file("[1]", "")), ContainsSubstring("no safetensors file"));
  CHECK_THAT(MessageOf(file("{}", "")), ContainsSubstring("something else"));
  CHECK_THAT(MessageOf(file(R"({"__metadata__":{"format":"bitplan","version":"2"}})", "")),
             ContainsSubstring("format version is '2'"));
}

TEST_CASE("every format is found by name, and a misspelt one names the nearest") {
  for (const Exporter& exporter : Exporters()) {
    CHECK(&FindExporter(exporter.name) == &exporter);
    CHECK_THAT(ExportersHelp(), ContainsSubstring(exporter.name) && ContainsSubstring(exporter.description));
  }
  CHECK_THROWS_WITH(FindExporter("packd"), ContainsSubstring("packed"));
}

TEST_CASE("the JSON of a network gives every weight back exactly") {
  const Scratch folder;
  QuantizedNetwork network = SmallFile();
  network.others.emplace_back("mask", torch::tensor({-std::numeric_limits<float>::infinity(), 0.1F}));
  const Plan plan;
  FindExporter("json").write({network, plan, folder / "none"}, {folder / "network.json"});
  const auto json = nlohmann::json::parse(ReadFile(folder / "network.json", "json"));
  CHECK(json.at("plan") == network.plan);
  REQUIRE(json.at("layers").size() == network.layers.size());
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const auto& layer = json.at("layers")[l];
    const auto& block = layer.at("blocks").at(0);
    std::vector<float> values;
    const auto scales = block.at("scales").get<std::vector<float>>();
    const auto codes = block.at("codes").get<std::vector<int>>();
    const std::size_t per_channel = codes.size() / scales.size();
    for (std::size_t i = 0; i < codes.size(); ++i) {
      values.push_back(scales[i / per_channel] * (static_cast<float>(codes[i]) + block.at("offset").get<float>()));
    }
    CHECK(SameBits(torch::tensor(values).reshape(layer.at("shape").get<std::vector<std::int64_t>>()),
                   network.layers[l].Values()));
  }
  for (std::size_t i = 0; i < network.others.size(); ++i) {
    std::vector<float> values;
    for (const auto& value : json.at("others")[i].at("values")) {
      values.push_back(value.is_string() ? std::stof(value.get<std::string>()) : value.get<float>());
    }
    CHECK(SameBits(torch::tensor(values), network.others[i].second.flatten()));
  }
}

}  // namespace bitplan
