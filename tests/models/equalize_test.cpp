#include "bitplan/models/equalize.h"

#include "support/networks.h"

namespace bitplan {
namespace {

using testing::ConvBatchNorm;

struct Child {
  const char* name;
  torch::Tensor weight, bias;
};

Network Described(const std::vector<Child>& children, const std::string& forward,
                  const std::vector<std::int64_t>& shape) {
  torch::jit::Module module("equalize");
  for (const Child& child : children) {
    torch::jit::Module inner(child.name);
    inner.register_parameter("weight", child.weight, false);
    if (child.bias.defined()) inner.register_parameter("bias", child.bias, false);
    module.register_module(child.name, inner);
  }
  module.define(forward);
  module.eval();
  return DescribeNetwork(module, "equalize", shape);
}

torch::Tensor Images(const Network& network, std::int64_t count = 64) {
  std::vector<std::int64_t> shape = network.input_shape;
  shape.insert(shape.begin(), count);
  torch::manual_seed(5);
  return torch::randn(shape);
}

double LargestChange(const Network& before, const Network& after) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor images = Images(before);
  const torch::Tensor answers = RunForward(before.module, images);
  return ((RunForward(after.module, images) - answers).abs().max() / answers.abs().max()).item<double>();
}

// The weights themselves change: a network that was left alone would answer the same too.
bool Differs(const Network& before, const Network& after, const std::string& path) {
  return !torch::allclose(GetTensor(before.module, path), GetTensor(after.module, path), 1e-3);
}

TEST_CASE("ranges of channels are evened out behind a batch norm, and the network answers the same") {
  Network network = ConvBatchNorm();
  GetTensor(network.module, "bn1.weight").mul_(torch::logspace(-1.0, 1.0, 8));
  GetTensor(network.module, "bn2.weight").mul_(torch::logspace(1.0, -1.0, 8));
  const Network before = network;
  const auto changed = EqualizeRanges(network, Images(network), 1.0, SilentSink());
  REQUIRE(changed.size() == 2);
  CHECK(changed[0].made_by == "bn1");
  CHECK(changed[0].read_by == std::vector<std::string>{"conv2"});
  CHECK(changed[1].read_by == std::vector<std::string>{"fc"});  // behind a relu and a mean over positions
  for (const auto& tensor : changed) {
    CHECK(tensor.before > 2.0);
    CHECK(tensor.after == Approx(1.0).epsilon(1e-3));  // share 1: all channels have the same range
  }
  CHECK(LargestChange(before, network) < 1e-5);
  CHECK(Differs(before, network, "bn1.weight"));
  CHECK(Differs(before, network, "conv2.weight"));
  CHECK(Differs(before, network, "fc.weight"));
  CHECK(GetTensor(before.module, "bn1.weight")[7].item<float>() == Approx(10.0));  // its own network is untouched
  Network half = before;
  const auto less = EqualizeRanges(half, Images(network), 0.5, SilentSink());
  REQUIRE(less.size() == 2);
  CHECK(less[0].after > 1.05);
  CHECK(less[0].after < less[0].before);
}

TEST_CASE("kinds of layers and groups: every reader counts its channels in its own way") {
  torch::manual_seed(3);
  const auto sizes = torch::logspace(-1.0, 1.0, 6);
  Network network =
      Described({{"first", torch::randn({6, 2, 3, 3}) * sizes.reshape({6, 1, 1, 1}), torch::randn(6) * sizes},
                 {"depth", torch::randn({6, 1, 3, 3}), torch::randn(6)},
                 {"grouped", torch::randn({4, 3, 1, 1}), torch::Tensor()},
                 {"up", torch::randn({4, 3, 2, 2}), torch::randn(3)},
                 {"hidden", torch::randn({5, 108}) * 0.1, torch::randn(5)},
                 {"head", torch::randn({5, 3}), torch::Tensor()}},
                R"(
def forward(self, x):
  x = torch.relu(torch.conv2d(x, self.first.weight, self.first.bias, 1, 1))
  x = torch.relu(torch.conv2d(x, self.depth.weight, self.depth.bias, 1, 1, 1, 6))
  x = torch.max_pool2d(x, [2, 2])
  x = torch.leaky_relu(torch.conv2d(x, self.grouped.weight, None, 1, 0, 1, 2), 0.1)
  x = torch.relu(torch.conv_transpose2d(x, self.up.weight, self.up.bias, 2))
  x = torch.relu(torch.linear(torch.flatten(x, 1), self.hidden.weight, self.hidden.bias))
  return torch.matmul(x, self.head.weight)
)",
                {2, 6, 6});
  const Network before = network;
  const auto changed = EqualizeRanges(network, Images(network), 0.5, SilentSink());
  std::vector<std::string> makers;
  for (const auto& tensor : changed) makers.push_back(tensor.made_by);
  // The transposed convolution makes its tensor the other way round, and is left as it was.
  CHECK(makers == std::vector<std::string>{"first", "depth", "grouped", "hidden"});
  CHECK(LargestChange(before, network) < 1e-5);
  for (const char* path : {"depth.weight", "grouped.weight", "up.weight", "head.weight"}) {
    INFO(path);
    CHECK(Differs(before, network, path));
  }
}

TEST_CASE("a flattened channel is several columns of the layer that reads it") {
  torch::manual_seed(4);
  Network network = Described(
      {{"conv", torch::randn({3, 1, 3, 3}) * torch::tensor({0.1F, 1.0F, 5.0F}).reshape({3, 1, 1, 1}), torch::randn(3)},
       {"fc", torch::randn({4, 48}), torch::Tensor()}},
      "def forward(self, x):\n  x = torch.relu(torch.conv2d(x, self.conv.weight, self.conv.bias))\n"
      "  return torch.linear(torch.flatten(x, 1), self.fc.weight)\n",
      {1, 6, 6});
  const Network before = network;
  REQUIRE(EqualizeRanges(network, Images(network), 1.0, SilentSink()).size() == 1);
  CHECK(LargestChange(before, network) < 1e-5);
  const torch::Tensor ratio = GetTensor(network.module, "fc.weight") / GetTensor(before.module, "fc.weight");
  const torch::Tensor by_channel = ratio.reshape({4, 3, 16});
  CHECK((by_channel - by_channel.slice(2, 0, 1)).abs().max().item<double>() < 1e-4);
  CHECK((ratio.max() / ratio.min()).item<double>() > 5.0);
}

TEST_CASE("a tensor that anything but layers reads, or that is bent on the way, is left as it was") {
  torch::manual_seed(6);
  const std::vector<Child> children = {{"one", torch::randn({4, 4}) * torch::logspace(-1, 1, 4).unsqueeze(1), {}},
                                       {"two", torch::randn({4, 4}), {}}};
  for (const char* way :
       {"x = torch.relu(torch.linear(x, self.one.weight))\n  return torch.linear(x, self.two.weight) + x",
        "x = torch.sigmoid(torch.linear(x, self.one.weight))\n  return torch.linear(x, self.two.weight)",
        "x = torch.clamp(torch.linear(x, self.one.weight), 0.0, 6.0)\n"
        "  return torch.linear(x, self.two.weight)",
        "y = torch.linear(x, self.one.weight)\n"
        "  return torch.linear(torch.relu(y), self.two.weight) + torch.abs(y)",
        "x = torch.relu(torch.linear(torch.linear(x, self.one.weight), self.one.weight))\n"
        "  return torch.linear(x, self.two.weight)"}) {
    INFO(way);
    Network network = Described(children, std::string("def forward(self, x):\n  ") + way + "\n", {4});
    const Network before = network;
    CHECK(EqualizeRanges(network, Images(network), 0.5, SilentSink()).empty());
    CHECK(torch::equal(GetTensor(network.module, "one.weight"), GetTensor(before.module, "one.weight")));
  }
}

TEST_CASE("a channel that is dead keeps its weights") {
  Network network = ConvBatchNorm();
  GetTensor(network.module, "bn1.weight")[3] = 0.0;
  GetTensor(network.module, "bn1.bias")[3] = -1.0;
  const Network before = network;
  CHECK(EqualizeRanges(network, Images(network), 0.5, SilentSink()).size() == 2);
  CHECK(torch::equal(GetTensor(network.module, "conv2.weight").select(1, 3),
                     GetTensor(before.module, "conv2.weight").select(1, 3)));
  CHECK(LargestChange(before, network) < 1e-5);
}

}  // namespace
}  // namespace bitplan
