// The QONNX file, evaluated as its specification says: an evaluator that shares nothing with the exporter.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "exporters/codes.h"
#include "exporters/onnx_reader.h"
#include "exporters/onnx_weights_reader.h"
#include "support/networks.h"

namespace bitplan {
namespace {

using testing::FloatsOf;
using testing::QuantOf;
using testing::ReadModel;
using testing::ReadOperation;

ReadModel ExportedAsQonnx(const QuantizedNetwork& network, const torch::jit::Module& module,
                          const std::vector<std::int64_t>& shape) {
  const Scratch folder;
  const auto torchscript = folder / "quantized.pt";
  SaveModule(module, torchscript);
  const Plan plan;
  FindExporter("qonnx").write({network, plan, torchscript, {.shape = shape}}, {folder / "quantized.onnx"});
  return testing::ReadOnnx(ReadFile(folder / "quantized.onnx", "model"));
}

// Bits of a value; in a channel whose scale is zero both zeros are one.
bool SameButForDeadZeros(const torch::Tensor& a, const torch::Tensor& b, const QuantizedTensor& block) {
  torch::Tensor one = a.clone(), other = b.clone();
  const torch::Tensor scales = block.scales.expand({block.codes.size(block.channel_dim)}).contiguous();
  for (std::int64_t c = 0; c < scales.numel(); ++c) {
    if (scales[c].item<float>() != 0.0F) continue;
    if (one.select(block.channel_dim, c).ne(0).any().item<bool>()) return false;
    one.select(block.channel_dim, c).zero_();
    other.select(block.channel_dim, c).zero_();
  }
  return testing::SameBits(one, other);
}

const ReadOperation* QuantNodeOf(const ReadModel& model, const std::string& output) {
  for (const ReadOperation& node : model.operations) {
    if (std::count(node.outputs.begin(), node.outputs.end(), output) > 0) return &node;
  }
  return nullptr;
}

}  // namespace

TEST_CASE("Quant and BipolarQuant of QONNX, computed as published, give every width and grid back bit for bit") {
  torch::manual_seed(11);
  QuantizedNetwork network;
  torch::jit::Module module("many");
  std::string forward = "def forward(self, x):\n  return torch.cat([";
  const auto add = [&](const QuantizedNetwork& layers, const std::string& operation, const char* mark) {
    for (const QuantizedLayer& layer : layers.layers) {
      const std::string name = mark + layer.name;
      network.layers.push_back({name, name, layer.blocks});
      forward += "torch." + operation + "(x, self." + name + "), ";
    }
  };
  add(testing::EveryWidth({7, 9}, 0), "linear", "r");
  add(testing::EveryWidth({9, 5}, 1), "matmul", "c");
  for (const QuantizedLayer& layer : network.layers) module.register_parameter(layer.parameter, layer.Values(), false);
  module.define(forward + "x], 1)\n");
  const ReadModel model = ExportedAsQonnx(network, module, {9});
  CHECK(model.opset == 21);
  CHECK(model.other_opsets.at("qonnx.custom_op.general") == 1);
  std::size_t layer = 0;
  for (const ReadOperation& operation : model.operations) {
    if (operation.type != "Gemm") continue;
    const QuantizedTensor& was = network.layers.at(layer).blocks.front();
    const bool transposed = layer >= network.layers.size() / 2;  // Gemm reads rows of the output
    INFO("layer " << layer << ", " << was.bits << " bits, offset " << was.offset);
    ++layer;
    const ReadOperation* maker = QuantNodeOf(model, operation.inputs.at(1));
    REQUIRE(maker != nullptr);
    if (was.bits == 0) {
      CHECK(maker->type == "ConstantOfShape");
      continue;
    }
    const bool half = was.offset != 0.0F;
    CHECK(maker->type == (was.bits == 1 && half ? "BipolarQuant" : "Quant"));
    if (maker->type == "Quant") {
      CHECK(FloatsOf(model, maker->inputs.at(3)).item<int>() == std::max(was.bits + (half ? 1 : 0), 2));
      CHECK(maker->numbers.at("narrow").at(0) == (half ? 1 : 0));
      CHECK(FloatsOf(model, maker->inputs.at(2)).item<float>() == 0.0F);
    }
    const torch::Tensor values = QuantOf(model, *maker);
    CHECK(SameButForDeadZeros(transposed ? values.t() : values, was.Values(), was));
    // What stands before the node is the weight already.
    const torch::Tensor before = FloatsOf(model, maker->inputs.at(0));
    CHECK(testing::SameBits(transposed ? before.t() : before, was.Values()));
  }
  CHECK(layer == network.layers.size());
}

TEST_CASE("blocks of output channels with widths of their own are one Quant node of the widest") {
  torch::manual_seed(12);
  QuantizedNetwork network;
  network.layers.push_back(
      {"conv",
       "weight",
       {testing::RandomCodes(3, 0.5F, {2, 3, 3, 3}, 0, false), testing::RandomCodes(0, 0.0F, {1, 3, 3, 3}, 0, true),
        testing::RandomCodes(5, 0.0F, {4, 3, 3, 3}, 0, false)}});
  torch::jit::Module module("blocks");
  module.register_parameter("weight", network.layers[0].Values(), false);
  module.define("def forward(self, x):\n  return torch.conv2d(x, self.weight).mean([2, 3])\n");
  const ReadModel model = ExportedAsQonnx(network, module, {3, 5, 5});
  const auto found = std::find_if(model.operations.begin(), model.operations.end(),
                                  [](const ReadOperation& one) { return one.type == "Quant"; });
  REQUIRE(found != model.operations.end());
  CHECK(FloatsOf(model, found->inputs.at(3)).item<int>() == 5);
  CHECK(FloatsOf(model, found->inputs.at(1)).sizes().vec() == std::vector<std::int64_t>{7, 1, 1, 1});
  CHECK(testing::SameBits(QuantOf(model, *found), network.layers[0].Values()));
}

}  // namespace bitplan
