#include "models/resumable_pass.h"

#include <torch/utils.h>

#include "bitplan/models/architectures.h"
#include "bitplan/models/tap.h"
#include "models/support.h"
#include "support/networks.h"

namespace bitplan {
namespace {

// Three layers; what `forward` does with them is the test's.
Network ThreeLayers(const std::string& forward) {
  torch::manual_seed(3);
  return DescribeNetwork(
      testing::MakeModule({{"a", torch::randn({6, 4})}, {"b", torch::randn({6, 6})}, {"c", torch::randn({3, 6})}},
                          "def forward(self, x):\n" + forward),
      "three", {4});
}

torch::Tensor SomeImages(const Network& network, std::int64_t count) {
  std::vector<std::int64_t> shape = network.input_shape;
  shape.insert(shape.begin(), count);
  torch::manual_seed(4);
  return torch::randn(shape);
}

// From every point, twice, the answers of the whole network; returns the number of pieces.
std::size_t CheckEveryPoint(const Network& network) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor images = SomeImages(network, 5);
  const ResumablePass pass(network, network.module, images.slice(0, 0, 3));
  const torch::Tensor answers = RunForward(network.module, images);
  for (auto point = pass.Begin(images); !pass.AtEnd(point); pass.Step(point)) {
    INFO(network.name << ", from piece " << point.piece);
    CHECK(torch::allclose(pass.Finish(point), answers, 1e-5, 1e-6));
    CHECK(torch::allclose(pass.Finish(point), answers, 1e-5, 1e-6));
  }
  return pass.pieces();
}

TEST_CASE("a pass that starts again in the middle gives the answers of the whole one") {
  for (const char* name : {"lenet5-caffe", "resnet20"}) {
    const Architecture& architecture = FindArchitecture(name);
    const Network network = DescribeNetwork(BuildArchitecture(name, 1), name, architecture.input_shape);
    CHECK(CheckEveryPoint(network) > network.layers.size() / 2);
  }
  CHECK(CheckEveryPoint(testing::ConvBatchNorm()) == 3);
  (void)CheckEveryPoint(testing::RareBranch(0.0));
  (void)CheckEveryPoint(testing::RareBatchNorm(0.0));
}

TEST_CASE("a pass never starts again where a value lies ready that a later operation writes into") {
  // Ready before b, and changed after it.
  CHECK(CheckEveryPoint(ThreeLayers("    h = torch.linear(x, self.a)\n"
                                    "    g = torch.linear(h, self.b)\n"
                                    "    h.relu_()\n"
                                    "    return torch.linear(h + g, self.c)\n")) == 2);
  // The same through a view.
  CHECK(CheckEveryPoint(ThreeLayers("    h = torch.linear(x, self.a)\n"
                                    "    v = h[:, :3]\n"
                                    "    g = torch.linear(h, self.b)\n"
                                    "    v.mul_(2.0)\n"
                                    "    return torch.linear(h + g, self.c)\n")) == 2);
  // A block with a shortcut, all of it in place: b may start again, its own output is written into.
  CHECK(CheckEveryPoint(ThreeLayers("    h = torch.linear(x, self.a).relu_()\n"
                                    "    g = torch.linear(h, self.b)\n"
                                    "    g += h\n"
                                    "    g.relu_()\n"
                                    "    return torch.linear(g, self.c)\n")) == 3);
}

TEST_CASE("layers in a loop, in a branch or used twice are run again with their weights of now") {
  for (const char* forward : {"    h = torch.linear(x, self.a)\n"
                              "    for i in range(3):\n"
                              "        h = torch.relu(torch.linear(h, self.b))\n"
                              "    return torch.linear(h, self.c)\n",
                              "    h = torch.linear(x, self.a)\n"
                              "    if bool(h.sum() > -1e9):\n"
                              "        h = torch.linear(torch.relu(h), self.b)\n"
                              "    return torch.linear(torch.linear(h, self.b), self.c)\n"}) {
    const Network network = ThreeLayers(forward);
    CHECK(CheckEveryPoint(network) > 1);
    const torch::NoGradGuard no_grad;
    const torch::jit::Module clone = CloneModule(network.module);
    const torch::Tensor images = SomeImages(network, 4);
    const ResumablePass pass(network, clone, images);
    auto point = pass.Begin(images);
    pass.Step(point);
    GetTensor(clone, "b").mul_(0.5);
    CHECK(torch::allclose(pass.Finish(point), RunForward(clone, images), 1e-5, 1e-6));
  }
}

TEST_CASE("what comes before the point is not run again") {
  const torch::NoGradGuard no_grad;
  const Network network = testing::ConvBatchNorm();
  const torch::Tensor images = SomeImages(network, 4);
  const ResumablePass pass(network, network.module, images);
  auto point = pass.Begin(images);
  for (std::size_t first = 0; !pass.AtEnd(point); ++first, pass.Step(point)) {
    std::vector<std::size_t> layers;
    const Tap tap(network, network.module,
                  {.on_layer_input = [&](std::size_t layer, const torch::Tensor&) { layers.push_back(layer); },
                   .on_layer_output = nullptr,
                   .on_batch_norm_input = nullptr});
    (void)pass.Finish(point);
    std::vector<std::size_t> expected;
    for (std::size_t l = first; l < network.layers.size(); ++l) expected.push_back(l);
    CHECK(layers == expected);
  }
}

TEST_CASE("an argument of forward that has a default keeps it") {
  const Network network =
      DescribeNetwork(testing::MakeModule({{"a", torch::ones({2, 3})}, {"b", torch::ones({2, 2})}},
                                          "def forward(self, x, factor: float = 3.0):\n"
                                          "    return torch.linear(torch.linear(x, self.a) * factor, self.b)\n"),
                      "factor", {3});
  CHECK(CheckEveryPoint(network) == 2);
}

}  // namespace
}  // namespace bitplan
