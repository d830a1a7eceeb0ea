// The ONNX file, read back. tests/python/onnx_networks.py runs it in ONNX Runtime.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <set>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/files.h"
#include "bitplan/models/architectures.h"
#include "bitplan/ptq/apply.h"
#include "exporters/codes.h"
#include "exporters/onnx_reader.h"
#include "exporters/onnx_weights_reader.h"
#include "io/scratch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::Dequantized;
using testing::kInt16Type;
using testing::kInt2Type;
using testing::kInt4Type;
using testing::kInt8Type;
using testing::ReadModel;
using testing::ReadOperation;
using testing::ReadTensor;

ReadModel ExportedAsOnnx(const QuantizedNetwork& network, const torch::jit::Module& module,
                         const std::vector<std::int64_t>& shape) {
  const Scratch folder;
  const auto torchscript = folder / "quantized.pt";
  SaveModule(module, torchscript);
  const Plan plan;
  FindExporter("onnx").write({network, plan, torchscript, {.shape = shape}}, {folder / "quantized.onnx"});
  return testing::ReadOnnx(ReadFile(folder / "quantized.onnx", "model"));
}

std::string RefusalOfOnnx(const std::string& forward, const std::vector<std::int64_t>& shape = {6}) {
  torch::jit::Module head("head"), module("refused");
  head.register_parameter("weight", torch::randn({4, 6}), false);
  head.define("def forward(self, x):\n  return " + forward + "\n");
  module.register_module("head", head);
  module.define("def forward(self, x):\n  return self.head.forward(x)\n");
  try {
    (void)ExportedAsOnnx({}, module, shape);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kData);
    return error.what();
  }
  return "";
}

const ReadOperation* MakerOf(const ReadModel& model, const std::string& output) {
  for (const ReadOperation& operation : model.operations) {
    if (std::count(operation.outputs.begin(), operation.outputs.end(), output) > 0) return &operation;
  }
  return nullptr;
}

}  // namespace

TEST_CASE("weights of every width and grid come back from the ONNX file bit for bit, in the smallest type for them") {
  torch::manual_seed(1);
  QuantizedNetwork network;
  torch::jit::Module module("many");
  std::string forward = "def forward(self, x):\n  return torch.cat([";
  for (int bits = 0; bits <= 8; ++bits) {
    for (const float offset : {0.0F, 0.5F}) {
      for (const bool per_channel : {true, false}) {
        const std::string rows = "r" + std::to_string(network.layers.size()), columns = "c" + rows;
        network.layers.push_back({rows, rows, {testing::RandomCodes(bits, offset, {7, 9}, 0, per_channel)}});
        network.layers.push_back({columns, columns, {testing::RandomCodes(bits, offset, {9, 5}, 1, per_channel)}});
        forward += "torch.linear(x, self." + rows + "), torch.matmul(x, self." + columns + "), ";
      }
    }
  }
  for (const QuantizedLayer& layer : network.layers) module.register_parameter(layer.parameter, layer.Values(), false);
  module.define(forward + "x], 1)\n");
  const ReadModel model = ExportedAsOnnx(network, module, {9});
  CHECK(model.opset == 25);
  CHECK(model.ir_version == 13);
  std::size_t layer = 0;
  for (const ReadOperation& operation : model.operations) {
    if (operation.type != "Gemm") continue;
    const QuantizedTensor& was = network.layers.at(layer).blocks.front();
    INFO("layer " << layer << ", " << was.bits << " bits, offset " << was.offset);
    const bool transposed = layer % 2 == 1;  // Gemm reads rows of the output
    ++layer;
    const ReadOperation* maker = MakerOf(model, operation.inputs.at(1));
    REQUIRE(maker != nullptr);
    if (was.bits == 0) {
      CHECK(maker->type == "ConstantOfShape");
      continue;
    }
    REQUIRE(maker->type == "DequantizeLinear");
    const torch::Tensor values = Dequantized(model, *maker);
    CHECK(testing::SameBits(transposed ? values.t() : values, was.Values()));
    const int needed = was.bits + (was.offset == 0.0F ? 0 : 1);
    CHECK(model.initializers.at(maker->inputs[0]).type == (needed <= 2   ? kInt2Type
                                                           : needed <= 4 ? kInt4Type
                                                           : needed <= 8 ? kInt8Type
                                                                         : kInt16Type));
  }
  CHECK(layer == network.layers.size());
}

TEST_CASE("blocks of output channels with widths of their own make one weight in the ONNX file") {
  torch::manual_seed(2);
  QuantizedNetwork network;
  network.layers.push_back(
      {"conv",
       "weight",
       {testing::RandomCodes(3, 0.5F, {2, 3, 3, 3}, 0, true), testing::RandomCodes(0, 0.0F, {1, 3, 3, 3}, 0, true),
        testing::RandomCodes(4, 0.0F, {4, 3, 3, 3}, 0, false)}});
  torch::jit::Module module("blocks");
  module.register_parameter("weight", network.layers[0].Values(), false);
  module.define("def forward(self, x):\n  return torch.conv2d(x, self.weight).mean([2, 3])\n");
  const ReadModel model = ExportedAsOnnx(network, module, {3, 5, 5});
  const auto found = std::find_if(model.operations.begin(), model.operations.end(),
                                  [](const ReadOperation& one) { return one.type == "DequantizeLinear"; });
  REQUIRE(found != model.operations.end());
  CHECK(testing::SameBits(Dequantized(model, *found), network.layers[0].Values()));
  CHECK(model.initializers.at(found->inputs[0]).type == kInt4Type);
  CHECK(model.opset == 21);
  CHECK(model.ir_version == 10);
}

TEST_CASE("in the ONNX file every operation follows those that it reads, every name is given once, the batch is free") {
  for (const char* const name : {"lenet5-caffe", "resnet20"}) {
    const auto& architecture = FindArchitecture(name);
    const Network network = DescribeNetwork(BuildArchitecture(name, 3), name, architecture.input_shape);
    const AppliedPlan applied = ApplyBits(network, std::vector<int>(network.layers.size(), 4), {}, {}, {});
    QuantizedNetwork stored = DescribeQuantized(network, applied.module, applied.weights);
    stored.plan = "bitplan: 1\n";
    const ReadModel model = ExportedAsOnnx(stored, applied.module, network.input_shape);
    INFO(name);
    CHECK(model.metadata.at("plan") == stored.plan);
    REQUIRE(model.inputs == std::vector<std::string>{"input"});
    REQUIRE(model.outputs == std::vector<std::string>{"output"});
    std::vector<std::string> sizes = {"batch"};
    for (const std::int64_t size : network.input_shape) sizes.push_back(std::to_string(size));
    CHECK(model.ports.at("input") == sizes);
    CHECK(model.ports.at("output") == std::vector<std::string>{"batch", "10"});
    std::set<std::string> known = {"input", ""}, used;
    for (const auto& [constant, tensor] : model.initializers) known.insert(constant);
    std::set<std::string> names;
    for (const ReadOperation& operation : model.operations) {
      CHECK(names.insert(operation.name).second);
      for (const std::string& input : operation.inputs) {
        INFO(operation.name << " reads " << input);
        CHECK(known.contains(input));
        used.insert(input);
      }
      for (const std::string& output : operation.outputs) CHECK(known.insert(output).second);
    }
    CHECK(known.contains("output"));
    for (const auto& [constant, tensor] : model.initializers) CHECK(used.contains(constant));
    CHECK(std::count_if(model.operations.begin(), model.operations.end(), [](const ReadOperation& operation) {
            return operation.type == "DequantizeLinear";
          }) == static_cast<std::ptrdiff_t>(network.layers.size()));
  }
}

TEST_CASE("a weight that two layers share is in the ONNX file once") {
  torch::manual_seed(4);
  QuantizedNetwork network;
  network.layers.push_back({"fc", "weight", {testing::RandomCodes(4, 0.0F, {6, 6}, 0, true)}});
  torch::jit::Module module("shared");
  module.register_parameter("weight", network.layers[0].Values(), false);
  module.define(
      "def forward(self, x):\n  x = torch.relu(torch.linear(x, self.weight))\n"
      "  return torch.matmul(torch.linear(x, self.weight), self.weight.t())\n");
  const ReadModel model = ExportedAsOnnx(network, module, {6});
  CHECK(std::count_if(model.operations.begin(), model.operations.end(),
                      [](const ReadOperation& one) { return one.type == "DequantizeLinear"; }) == 1);
}

TEST_CASE(
    "behind rounded activations weights become int8 by a Cast, weights of a Gemm have zero points, codes a limit") {
  torch::manual_seed(5);
  QuantizedNetwork network;
  network.layers.push_back({"conv", "conv", {testing::RandomCodes(4, 0.0F, {3, 2, 3, 3}, 0, true)}});
  network.layers.push_back({"fc", "fc", {testing::RandomCodes(8, 0.0F, {4, 3}, 0, true)}});
  network.layers.push_back({"last", "last", {testing::RandomCodes(4, 0.0F, {5, 4}, 0, true)}});
  torch::jit::Module module("rounded");
  for (const auto& layer : network.layers) module.register_parameter(layer.parameter, layer.Values(), false);
  module.define(
      "def forward(self, x):\n"
      "  x = torch.fake_quantize_per_tensor_affine(x, 0.1, 100, 0, 255)\n"
      "  x = torch.relu(torch.conv2d(x, self.conv)).mean([2, 3])\n"
      "  x = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 15)\n"
      "  return torch.linear(torch.linear(x, self.fc), self.last)\n");
  const ReadModel model = ExportedAsOnnx(network, module, {2, 5, 5});
  const auto weights_of = [&](const std::string& type, std::size_t which) {
    for (const ReadOperation& operation : model.operations) {
      if (operation.type == type && which-- == 0) return MakerOf(model, operation.inputs.at(1));
    }
    return static_cast<const ReadOperation*>(nullptr);
  };
  const ReadOperation *conv = weights_of("Conv", 0), *fc = weights_of("Gemm", 0), *last = weights_of("Gemm", 1);
  REQUIRE((conv != nullptr && fc != nullptr && last != nullptr));
  const ReadOperation* const cast = MakerOf(model, conv->inputs.at(0));
  REQUIRE(cast != nullptr);
  CHECK(cast->type == "Cast");
  CHECK(model.initializers.at(cast->inputs.at(0)).type == kInt4Type);  // the file stays small
  CHECK(conv->inputs.size() == 2);
  REQUIRE(fc->inputs.size() == 3);
  CHECK(model.initializers.at(fc->inputs[0]).type == kInt8Type);
  CHECK(model.initializers.at(fc->inputs[2]).type == kInt8Type);
  CHECK(last->inputs.size() == 2);  // it reads float
  CHECK(model.initializers.at(last->inputs[0]).type == kInt4Type);
  std::size_t limits = 0;
  for (const ReadOperation& operation : model.operations) {
    if (operation.type != "Clip") continue;
    ++limits;
    const ReadOperation* const codes = MakerOf(model, operation.inputs.at(0));
    REQUIRE(codes != nullptr);
    CHECK(codes->type == "QuantizeLinear");
  }
  CHECK(limits == 1);  // of 4 bits alone
}

TEST_CASE("what ONNX cannot hold is refused in one line that says which operator and where") {
  CHECK_THAT(RefusalOfOnnx("torch.asinh(torch.linear(x, self.weight))"),
             ContainsSubstring("aten::asinh in 'head'") && ContainsSubstring("docs/formats.md"));
  CHECK_THAT(RefusalOfOnnx("torch.linear(x, self.weight) * float(x.max())"),
             ContainsSubstring("reads the numbers of activations"));
  CHECK_THAT(RefusalOfOnnx("torch.linear(x, self.weight) if x.size(0) > 4 else torch.linear(-x, self.weight)"),
             ContainsSubstring("a branch depends on the size of the batch"));
  CHECK_THAT(RefusalOfOnnx("torch.linear(x, self.weight) * (x.size(0) // 2)"), ContainsSubstring("size of the batch"));
  CHECK_THAT(RefusalOfOnnx("torch.linear(x, self.weight) / torch.arange(x.size(0)).float().add(1).unsqueeze(1)"),
             ContainsSubstring("size of the batch"));
  CHECK_THAT(RefusalOfOnnx("torch.dropout(torch.linear(x, self.weight), 0.5, True)"), ContainsSubstring("at random"));
  CHECK(RefusalOfOnnx("torch.linear(x, self.weight)").empty());
}

}  // namespace bitplan
