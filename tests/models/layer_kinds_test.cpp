// Layers of every kind: what is found of them, and what their weights are multiplied with.
#include "support/layer_kinds.h"
#include "bitplan/models/image_rows.h"
#include "bitplan/models/layer_inputs.h"
#include "models/support.h"

namespace bitplan {
namespace {

using testing::ConvolutionKinds;
using testing::KindNetwork;
using testing::LayerKind;

std::int64_t Product(const std::vector<std::int64_t>& sizes) {
  std::int64_t product = 1;
  for (const std::int64_t size : sizes) product *= size;
  return product;
}

// What the first layer alone gives for a batch.
torch::Tensor OutputsOf(const Network& network, const LayerKind& kind, const torch::Tensor& images) {
  torch::jit::Module alone("Alone");
  alone.register_parameter("w", GetTensor(network.module, "w"), false);
  alone.define("def forward(self, x):\n    return " + kind.call + "\n");
  return alone.forward({images}).toTensor();
}

TEST_CASE("convolutions of every kind are layers, with the dimension that counts their output channels") {
  for (const LayerKind& kind : ConvolutionKinds()) {
    INFO(kind.name);
    const Network network = KindNetwork(kind);
    REQUIRE(network.layers.size() == 2);
    const Layer& layer = network.layers[0];
    CHECK(layer.kind == kind.kind);
    CHECK(layer.output_dim == kind.output_dim);
    CHECK(layer.output_channels() == kind.channels);
    REQUIRE(layer.window);
    CHECK(layer.window->groups == kind.groups);
    CHECK(layer.output_values == kind.channels * Product(kind.positions));
    // A plain one multiplies for every output, a transposed one for every input.
    const bool transposed = kind.kind.find("transpose") != std::string::npos;
    const std::int64_t macs = transposed ? Product(kind.input) * (layer.weights() / kind.weight[0])
                                         : layer.output_values * (layer.weights() / kind.channels);
    CHECK(layer.macs == macs);
    CHECK(network.left_in_float.empty());
  }
}

TEST_CASE("gathered inputs times the weights of a layer of any kind are its outputs") {
  for (const LayerKind& kind : ConvolutionKinds()) {
    INFO(kind.name);
    const Network network = KindNetwork(kind);
    const Layer& layer = network.layers[0];
    REQUIRE(HasKnownInputs(layer));
    std::vector<std::int64_t> shape = kind.input;
    shape.insert(shape.begin(), 3);
    const torch::Tensor images = torch::randn(shape), outputs = OutputsOf(network, kind, images);
    const std::int64_t positions = InputPositions(layer, images);
    REQUIRE(positions == 3 * Product(kind.positions));
    const torch::Tensor inputs = GatherInputs(layer, images, torch::arange(positions));  // [groups, positions, n]
    REQUIRE(inputs.size(0) == kind.groups);
    REQUIRE(inputs.size(2) == layer.weights() / kind.channels);
    const torch::Tensor rows =
        GetTensor(network.module, "w").movedim(kind.output_dim, 0).reshape({kind.groups, -1, inputs.size(2)});
    const torch::Tensor products = inputs.matmul(rows.transpose(1, 2));  // [groups, positions, channels / groups]
    const torch::Tensor found = products.transpose(0, 1).reshape({positions, kind.channels});
    CHECK(torch::allclose(found, GatherOutputs(layer, outputs, torch::arange(positions)), 1e-4, 1e-4));
    // Some positions are the same as all of them.
    const torch::Tensor some = torch::tensor({positions - 1, std::int64_t{0}, positions / 2}, torch::kInt64);
    CHECK(torch::equal(GatherInputs(layer, images, some), inputs.index_select(1, some)));
    CHECK(ImageRows(network, images).Known(0));
  }
}

TEST_CASE("a transposed convolution in groups is planned when it is depthwise, and left in float with a reason else") {
  const auto described = [](const std::vector<std::int64_t>& weight) {
    return DescribeNetwork(
        testing::MakeModule({{"w", torch::randn(weight)}, {"fc", torch::randn({3, 2 * weight[1]})}},
                            "def forward(self, x):\n    h = torch.conv_transpose1d(x, self.w, None, 1, 0, 0, 2)\n"
                            "    return torch.linear(h.mean([2]), self.fc)\n"),
        "groups", {weight[0], 5});
  };
  CHECK(described({2, 1, 3}).layers.size() == 2);
  const Network grouped = described({4, 3, 3});
  REQUIRE(grouped.layers.size() == 1);
  REQUIRE(grouped.left_in_float.size() == 1);
  CHECK_THAT(grouped.left_in_float[0].reason, ContainsSubstring("in groups, whose output channels are no dimension"));
}

TEST_CASE("an embedding is a layer whose rows have a scale each, and which multiplies nothing") {
  const Network network = testing::WordNetwork();
  REQUIRE(network.layers.size() == 2);
  const Layer& layer = network.layers[0];
  CHECK(layer.kind == "embedding");
  CHECK(layer.name == "table");
  CHECK(layer.output_dim == 0);
  CHECK(layer.macs == 0);
  CHECK(layer.output_values == 5 * 6);
  CHECK_FALSE(HasKnownInputs(layer));
  CHECK_FALSE(ImageRows(network, testing::Words(8)).Known(0));
  CHECK(ImageRows(network, testing::Words(8)).Known(1));
}

}  // namespace
}  // namespace bitplan
