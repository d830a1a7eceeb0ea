#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <numeric>

#include "models/support.h"

namespace bitplan {
namespace {

using testing::CatchError;
using testing::MakeModule;
using Shape = std::vector<std::int64_t>;

std::string ReasonOf(const Network& network, const std::string& parameter) {
  for (const auto& entry : network.left_in_float) {
    if (entry.parameter == parameter) return entry.reason;
  }
  return "not listed";
}

TEST_CASE("layers are found in execution order with shapes and multiply-accumulates") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  REQUIRE(network.layers.size() == 2);
  CHECK(network.layers[0].name == "conv");
  CHECK(network.layers[0].kind == "conv2d");
  CHECK(network.layers[0].shape == Shape{4, 2, 3, 3});
  CHECK(network.layers[0].macs == 6 * 6 * 4 * 2 * 9);
  CHECK(network.layers[1].name == "fc");
  CHECK(network.layers[1].kind == "linear");
  CHECK(network.layers[1].macs == 12);
  CHECK(network.layers[1].uses == 1);
  CHECK(network.quantizable_weights() == 72 + 12);
}

TEST_CASE("biases and batch norms are left in float, each with its reason") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  CHECK(ReasonOf(network, "conv_bias") == "bias");
  CHECK(ReasonOf(network, "fc_bias") == "bias");
  CHECK(ReasonOf(network, "scale") == "batch norm");
  CHECK(ReasonOf(network, "shift") == "batch norm");
  CHECK(ReasonOf(network, "mean") == "batch norm statistics");
  CHECK(ReasonOf(network, "variance") == "batch norm statistics");
  CHECK(network.left_in_float.size() == 6);
  CHECK(network.weights_in_float() == 4 + 4 + 4 + 3);  // statistics are no weights
  CHECK(network.bytes_in_float() == 4 * (4 + 4 + 4 + 3 + 4 + 4));
  REQUIRE(network.batch_norms.size() == 1);
  CHECK(network.batch_norms[0].running_mean == "mean");
  CHECK(network.batch_norms[0].running_var == "variance");
  CHECK(network.batch_norms[0].channels == 4);
}

TEST_CASE("a weight used twice is one layer with two uses") {
  const auto module = MakeModule({{"weight", torch::randn({6, 6})}}, R"(
def forward(self, x):
    return torch.linear(torch.relu(torch.linear(x, self.weight)), self.weight)
)");
  const Network network = DescribeNetwork(module, "tied", {6});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].uses == 2);
  CHECK(network.layers[0].macs == 72);
  CHECK(network.quantizable_weights() == 36);
}

TEST_CASE("two attributes that share a tensor are one layer") {
  const torch::Tensor shared = torch::randn({6, 6});
  const auto module = MakeModule({{"first", shared}, {"second", shared}}, R"(
def forward(self, x):
    return torch.linear(torch.relu(torch.linear(x, self.second)), self.first)
)");
  const Network network = DescribeNetwork(module, "tied", {6});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].parameter == "first");
  CHECK(network.layers[0].uses == 2);
  CHECK(network.left_in_float.empty());
}

TEST_CASE("the output dimension follows how the weight is multiplied") {
  const torch::Tensor square = torch::randn({5, 5});
  const auto output_dim = [&](const std::string& expression) {
    const auto module = MakeModule({{"weight", square}, {"bias", torch::zeros({5})}},
                                   "def forward(self, x):\n    return " + expression + "\n");
    const Network network = DescribeNetwork(module, expression, {5});
    REQUIRE(network.layers.size() == 1);
    CHECK(network.layers[0].macs == 25);
    CHECK(ReasonOf(network, "bias") == (expression.find("bias") == std::string::npos ? "not used by forward" : "bias"));
    return network.layers[0].output_dim;
  };
  CHECK(output_dim("torch.linear(x, self.weight)") == 0);
  CHECK(output_dim("torch.linear(x, self.weight.t(), self.bias)") == 1);
  CHECK(output_dim("torch.addmm(self.bias, x, self.weight.t())") == 0);
  CHECK(output_dim("torch.addmm(self.bias, x, self.weight)") == 1);
  CHECK(output_dim("torch.matmul(x, self.weight.transpose(0, 1)) + self.bias") == 0);
  CHECK(output_dim("x @ self.weight") == 1);
  CHECK(output_dim("torch.mm(x, self.weight)") == 1);
}

TEST_CASE("a grouped convolution counts only the inputs of its group") {
  const auto module = MakeModule({{"weight", torch::randn({4, 2, 3, 3})}}, R"(
def forward(self, x):
    return torch.conv2d(x, self.weight, None, [1, 1], [1, 1], [1, 1], 2).mean([2, 3])
)");
  const Network network = DescribeNetwork(module, "grouped", {4, 5, 5});
  CHECK(network.layers.at(0).macs == 5 * 5 * 4 * 2 * 9);
}

TEST_CASE("a convolution inside the branch that runs is a layer, one in the other branch is left in float") {
  const auto module = MakeModule({{"taken", torch::randn({3, 2, 1, 1})}, {"other", torch::randn({3, 5, 1, 1})}}, R"(
def forward(self, x):
    if x.size(1) == 2:
        y = torch.conv2d(x, self.taken)
    else:
        y = torch.conv2d(x, self.other)
    return y.mean([2, 3])
)");
  const Network network = DescribeNetwork(module, "branch", {2, 4, 4});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].name == "taken");
  CHECK(ReasonOf(network, "other") == "not used by forward");
}

TEST_CASE("operations of other kinds leave their weights in float and say which they are") {
  const auto module = MakeModule({{"mix", torch::randn({4, 5})},
                                  {"kernel_back", torch::randn({4, 3, 1, 1})},
                                  {"gain", torch::ones({6})},
                                  {"fc", torch::randn({3, 6})}},
                                 R"(
def forward(self, x):
    h = torch.einsum("ni,oi->no", [x, self.mix]).unsqueeze(2).unsqueeze(3)
    h = torch.conv_transpose2d(h, self.kernel_back, None, 1, 0, 0, 2).mean([2, 3]) * self.gain
    return torch.linear(h, self.fc)
)");
  const Network network = DescribeNetwork(module, "words", {5});
  CHECK(network.layers.size() == 1);
  CHECK(ReasonOf(network, "mix") == "used by aten::einsum");
  CHECK(ReasonOf(network, "kernel_back") ==
        "used by aten::conv_transpose2d in groups, whose output channels are no dimension of it");
  CHECK(ReasonOf(network, "gain") == "used by aten::mul");
}

TEST_CASE("a weight shared by an embedding and a linear layer is one layer") {
  const auto module = MakeModule({{"table", torch::randn({7, 4})}, {"fc", torch::randn({4, 4})}}, R"(
def forward(self, x):
    h = torch.embedding(self.table, x.long()).mean([1])
    return torch.linear(torch.linear(h, self.fc), self.table)
)");
  const Network network = DescribeNetwork(module, "words", {5});
  REQUIRE(network.layers.size() == 2);
  CHECK(network.layers[0].name == "table");
  CHECK(network.layers[0].uses == 2);
  CHECK(network.layers[0].output_dim ==
        0);                                // a scale for every row: for every word, and every output of the last layer
  CHECK(network.layers[0].macs == 7 * 4);  // looking up multiplies nothing
  CHECK(network.left_in_float.empty());
}

TEST_CASE("a layer keeps the last part of its path unless it is called weight") {
  torch::jit::Module inner =
      MakeModule({{"weight", torch::randn({3, 3})}, {"extra", torch::randn({3, 3})}},
                 "def forward(self, x):\n    return torch.linear(x @ self.extra, self.weight)\n");
  torch::jit::Module outer("Outer");
  outer.register_module("inner", inner);
  outer.define("def forward(self, x):\n    return self.inner.forward(x)\n");
  const Network network = DescribeNetwork(outer, "nested", {3});
  REQUIRE(network.layers.size() == 2);
  CHECK(network.layers[0].name == "inner.extra");
  CHECK(network.layers[1].name == "inner");
  CHECK(network.layers[1].parameter == "inner.weight");
}

TEST_CASE("a buffer that the forward multiplies by is a layer, and masks, indices and encodings are no weights") {
  const auto module = MakeModule({{"fc", torch::randn({3, 4})}}, R"(
def forward(self, x):
    h = torch.linear(x, self.mixing) + self.encoding[self.index]
    h = h.masked_fill(self.mask, 0.0) * self.fixed.mean([0, 1])
    return torch.linear(h, self.fc)
)",
                                 {{"mixing", torch::randn({4, 4})},
                                  {"encoding", torch::randn({2, 4})},
                                  {"index", torch::zeros({1}, torch::kLong)},
                                  {"mask", torch::zeros({4}, torch::kBool)},
                                  {"fixed", torch::randn({4, 4})},
                                  {"unused", torch::randn({4, 4})}});
  const Network network = DescribeNetwork(module, "buffers", {4});
  REQUIRE(network.layers.size() == 2);
  CHECK(network.layers[0].name == "mixing");
  CHECK(network.layers[0].parameter == "mixing");
  for (const char* buffer : {"encoding", "mask", "index", "fixed"}) {
    CHECK(ReasonOf(network, buffer) == "buffer, not multiplied as a layer's weight");
  }
  CHECK(ReasonOf(network, "unused") == "not used by forward");
  CHECK(network.weights_in_float() == 0);
  CHECK(network.bytes_in_float() == 4 * 8 + 8 + 4 + 4 * 16 + 4 * 16);
}

TEST_CASE("a tensor attribute that nobody registered as a buffer is found as well") {
  torch::jit::Module module("Test");
  module.register_parameter("fc", torch::randn({3, 4}), false);
  module.register_attribute("plain", c10::TensorType::get(), torch::randn({4, 4}));
  module.define("def forward(self, x):\n    return torch.linear(torch.linear(x, self.plain), self.fc)\n");
  const Network network = DescribeNetwork(module, "plain", {4});
  REQUIRE(network.layers.size() == 2);
  CHECK(network.layers[0].name == "plain");
  const std::string before = ModelHash(module);
  SetTensor(module, "plain", torch::zeros({4, 4}));
  CHECK(ModelHash(module) != before);
}

TEST_CASE("a weight that only a list holds is listed, and one that a list holds too is not planned") {
  const auto shared = torch::randn({4, 4});
  torch::jit::Module module("Test");
  module.register_parameter("fc", torch::randn({3, 4}), false);
  module.register_parameter("shared", shared, false);
  module.register_attribute("ws", c10::ListType::ofTensors(),
                            c10::IValue(std::vector<torch::Tensor>{torch::randn({4, 4}), shared}));
  module.define(R"(
def forward(self, x):
    h = torch.linear(torch.linear(x, self.ws[0]), self.shared)
    return torch.linear(h, self.fc)
)");
  const Network network = DescribeNetwork(module, "list", {4});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].name == "fc");
  CHECK_THAT(ReasonOf(network, "ws[0]"), ContainsSubstring("inside a list"));
  CHECK_THAT(ReasonOf(network, "shared"), ContainsSubstring("also held as ws[1]"));
  CHECK(network.weights_in_float() == 32);
}

TEST_CASE("layers whose weights are views into one flat parameter leave it in float and say so") {
  const auto views = MakeModule({{"flat", torch::randn({16 + 12})}, {"fc", torch::randn({3, 3})}}, R"(
def forward(self, x):
    h = torch.linear(x, self.flat[:16].view(4, 4))
    return torch.linear(torch.linear(h, self.flat[16:].view(3, 4)), self.fc)
)");
  const Network sliced = DescribeNetwork(views, "flat", {4});
  REQUIRE(sliced.layers.size() == 1);
  CHECK_THAT(ReasonOf(sliced, "flat"), ContainsSubstring("a view into it is multiplied by aten::linear"));
  CHECK(sliced.weights_in_float() == 28);
  const auto parts = MakeModule({{"all", torch::randn({2, 4, 4})}, {"fc", torch::randn({3, 4})}}, R"(
def forward(self, x):
    first, second = self.all.unbind(0)
    return torch.linear(torch.linear(x, first) + torch.linear(x, second), self.fc)
)");
  CHECK_THAT(ReasonOf(DescribeNetwork(parts, "parts", {4}), "all"), ContainsSubstring("a view into it"));
}

TEST_CASE(
    "weights that a frozen graph holds as constants are listed, or named as the reason when there are no others") {
  const auto module = MakeModule({{"first", torch::randn({4, 4})}, {"fc", torch::randn({3, 4})}}, R"(
def forward(self, x):
    return torch.linear(torch.linear(x - 0.5, self.first), self.fc)
)");
  std::vector<std::string> kept{"fc"};
  const auto partly = torch::jit::freeze(module, kept);
  const Network network = DescribeNetwork(partly, "partly", {4});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].name == "fc");
  CHECK_THAT(ReasonOf(network, "constant 1"), ContainsSubstring("save the model unfrozen"));
  CHECK(network.weights_in_float() == 16);
  CHECK(network.bytes_in_float() == 64);
  const auto caught = CatchError([&] { (void)DescribeNetwork(torch::jit::freeze(module), "frozen", {4}); });
  CHECK(caught.kind == ErrorKind::kData);
  CHECK_THAT(caught.message, ContainsSubstring("constants of the graph") && ContainsSubstring("save it unfrozen"));
}

TEST_CASE("a bias that is a constant of the graph is no place for a correction") {
  const auto module = MakeModule({{"fc", torch::randn({3, 4})}, {"shift", torch::randn({3})}}, R"(
def forward(self, x):
    return torch.linear(x, self.fc, self.shift)
)");
  CHECK(DescribeNetwork(module, "whole", {4}).layers.at(0).bias == "shift");
  std::vector<std::string> kept{"fc"};
  const Network network = DescribeNetwork(torch::jit::freeze(module, kept), "partly", {4});
  REQUIRE(network.layers.size() == 1);
  CHECK(network.layers[0].bias.empty());
  CHECK(ReasonOf(network, "constant 1") == "bias");
  CHECK(network.weights_in_float() == 3);
}

TEST_CASE("a model that PyTorch has quantized is refused with the float model as the remedy") {
  torch::jit::Module module("Test");
  module.register_parameter("fc", torch::randn({3, 4}), false);
  module.define(R"(
def forward(self, x):
    q = torch.quantize_per_tensor(torch.linear(x, self.fc).unsqueeze(0), 0.1, 0, 12)
    return torch.dequantize(torch.quantized_max_pool1d(q, [1])).squeeze(0)
)");
  torch::jit::Module middle("Middle"), outer("Outer");
  middle.register_module("inner", module);
  middle.define("def forward(self, x):\n    return self.inner.forward(x)\n");
  outer.register_module("middle", middle);
  outer.define("def forward(self, x):\n    return self.middle.forward(x)\n");
  for (const auto& packed : {module, middle, outer}) {
    const auto caught = CatchError([&] { (void)DescribeNetwork(packed, "packed", {4}); });
    CHECK(caught.kind == ErrorKind::kData);
    CHECK_THAT(caught.message, ContainsSubstring("quantized already") && ContainsSubstring("give the float model"));
  }
}

TEST_CASE("the code of a method that a method calls belongs to a model's hash, whatever the optimizer does") {
  const torch::Tensor weight = torch::ones({3, 4});
  const auto nested = [&](const std::string& activation) {
    torch::jit::Module inner = MakeModule(
        {{"fc", weight}}, "def forward(self, x):\n    return torch.linear(torch." + activation + "(x), self.fc)\n");
    for (const char* name : {"Middle", "Outer"}) {
      torch::jit::Module outer(name);
      outer.register_module("inner", inner);
      outer.define("def forward(self, x):\n    return self.inner.forward(x)\n");
      inner = outer;
    }
    return inner;
  };
  const torch::jit::GraphOptimizerEnabledGuard off(false);
  const std::string plain = ModelHash(nested("relu"));
  CHECK(ModelHash(nested("relu")) == plain);
  CHECK(ModelHash(nested("tanh")) != plain);
  const torch::jit::GraphOptimizerEnabledGuard on(true);
  CHECK(ModelHash(nested("relu")) == plain);
}

TEST_CASE("an input shape that the model does not take is named with the reason, on one line") {
  const auto caught = CatchError([] { (void)DescribeNetwork(testing::SmallConvNet(), "small", {1, 8, 8}); });
  CHECK(caught.kind == ErrorKind::kData);
  CHECK(caught.message.find("[1, 8, 8]") != std::string::npos);
  CHECK(caught.message.find("channels") != std::string::npos);
  CHECK(std::count(caught.message.begin(), caught.message.end(), '\n') == 0);
}

TEST_CASE("a model without a quantizable layer is refused") {
  const auto module = MakeModule({{"gain", torch::ones({1})}}, "def forward(self, x):\n    return x * self.gain\n");
  const auto caught = CatchError([&] { (void)DescribeNetwork(module, "nothing", {3}); });
  CHECK(caught.kind == ErrorKind::kData);
  CHECK(caught.message.find("no layer to quantize") != std::string::npos);
}

TEST_CASE("a model that returns no tensor with a row for every input is refused") {
  const auto refusal = [](const std::string& result) {
    const auto module = MakeModule({{"weight", torch::randn({3, 3})}},
                                   "def forward(self, x):\n    y = torch.linear(x, "
                                   "self.weight)\n    return " +
                                       result + "\n");
    const auto caught = CatchError([&] { (void)DescribeNetwork(module, "odd", {3}); });
    CHECK(caught.kind == ErrorKind::kData);
    return caught.message;
  };
  CHECK(refusal("(y, x)").find("a tuple") != std::string::npos);
  CHECK(refusal("{'logits': y}").find("a dictionary") != std::string::npos);
  CHECK(refusal("[y]").find("a list") != std::string::npos);
  CHECK(refusal("y.sum()").find("shape []") != std::string::npos);
  CHECK(refusal("torch.cat([y, y])").find("[2, 3]") != std::string::npos);
}

TEST_CASE("a model whose outputs are no logits of whole images has layers all the same") {
  const auto module = MakeModule({{"weight", torch::randn({3, 3})}},
                                 "def forward(self, x):\n    return torch.linear(x, self.weight).unsqueeze(2)\n");
  CHECK(DescribeNetwork(module, "positions", {3}).layers.size() == 1);
}

TEST_CASE("the input shape of a model is guessed from the shapes of the known data sets") {
  const auto gray = MakeModule({{"weight", torch::randn({3, 784})}},
                               "def forward(self, x):\n    return torch.linear(torch.flatten(x, 1), self.weight)\n");
  CHECK(GuessInputShape(gray) == Shape{1, 28, 28});
  const auto color = MakeModule({{"weight", torch::randn({3, 3, 1, 1})}},
                                "def forward(self, x):\n    return torch.conv2d(x, self.weight).mean([2, 3])\n");
  CHECK(GuessInputShape(color) == Shape{3, 32, 32});
  const auto odd = MakeModule({{"weight", torch::randn({3, 7, 1, 1})}},
                              "def forward(self, x):\n    return torch.conv2d(x, self.weight).mean([2, 3])\n");
  CHECK(CatchError([&] { (void)GuessInputShape(odd); }).kind == ErrorKind::kData);
}

TEST_CASE("the foreign ResNet-20 has 19 convolutions, one linear layer and 268,336 weights") {
  const auto file = testing::ForeignModel("resnet20_cifar10.ts.pt");
  if (!file) return;
  const Network network = DescribeNetwork(LoadModule(*file), "resnet20", {3, 32, 32});
  CHECK(network.layers.size() == 20);
  CHECK(std::count_if(network.layers.begin(), network.layers.end(), [](auto& l) { return l.kind == "conv2d"; }) == 19);
  CHECK(network.quantizable_weights() == 268336);
  CHECK(network.batch_norms.size() == 19);
  CHECK(network.layers[0].macs == 32 * 32 * 16 * 27);
  CHECK(std::accumulate(network.layers.begin(), network.layers.end(), std::int64_t{0},
                        [](std::int64_t sum, const Layer& layer) { return sum + layer.macs; }) == 40551040);
}

TEST_CASE("the foreign VGG-16 in half precision has 13 convolutions and one linear layer") {
  const auto file = testing::ForeignModel("vgg16_bn_cifar10.ts.pt");
  if (!file) return;
  const Network network = DescribeNetwork(LoadModule(*file), "vgg16", {3, 32, 32});
  CHECK(network.layers.size() == 14);
  CHECK(network.layers.back().kind == "linear");
  CHECK(network.batch_norms.size() == 13);
}

TEST_CASE("the foreign MNIST network is described with its batch norms") {
  const auto file = testing::ForeignModel("burn_mnist_cnn.ts.pt");
  if (!file) return;
  const auto module = LoadModule(*file);
  const Network network = DescribeNetwork(module, "burn", GuessInputShape(module));
  CHECK(network.layers.size() >= 4);
  CHECK(network.layers[0].shape == Shape{8, 1, 3, 3});
  CHECK_FALSE(network.batch_norms.empty());
}

}  // namespace
}  // namespace bitplan
