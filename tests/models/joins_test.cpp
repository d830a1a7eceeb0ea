#include "bitplan/models/joins.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include "support/catch_torch.h"

namespace bitplan {
namespace {

using Kind = TensorSource::Kind;

constexpr const char* kPreamble = R"(
def norm(self, x):
  return torch.batch_norm(x, None, None, self.bn.running_mean, self.bn.running_var, False, 0.1, 1e-5, False)
def forward(self, x):
)";

// Convolutions a, b, c of four channels each and a batch norm; `body` computes y from x [N, 4, 6, 6].
Network Convolutions(const std::string& body) {
  torch::manual_seed(3);
  torch::jit::Module module("convolutions");
  for (const char* name : {"a", "b", "c"}) {
    torch::jit::Module child(name);
    child.register_parameter("weight", torch::randn({4, 4, 3, 3}) * 0.2, false);
    module.register_module(name, child);
  }
  torch::jit::Module norm("bn");
  norm.register_buffer("running_mean", torch::zeros(4));
  norm.register_buffer("running_var", torch::ones(4));
  module.register_module("bn", norm);
  module.define(kPreamble + body + "\n  return y.mean([2, 3])\n");
  module.eval();
  return DescribeNetwork(module, "convolutions", {4, 6, 6});
}

std::string Conv(const char* name, const char* of) {
  return std::string("torch.conv2d(") + of + ", self." + name + ".weight, None, 1, 1)";
}

std::size_t IndexOf(const Network& network, const std::string& name) {
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    if (network.layers[l].name == name) return l;
  }
  FAIL("no layer " << name);
  return 0;
}

TEST_CASE("a residual connection is found at the layer that ends it, whichever term stands first") {
  for (const std::string sum : {"y + x", "x + y", "torch.add(y, x)", "y.add_(x)"}) {
    const Network network = Convolutions("  x = torch.relu(" + Conv("a", "x") + ")\n  y = torch.relu(" +
                                         Conv("b", "x") + ")\n  y = self.norm(" + Conv("c", "y") + ")\n  y = " + sum);
    const auto joins = FindJoins(network);
    INFO(sum);
    CHECK_FALSE(joins[IndexOf(network, "a")]);
    CHECK_FALSE(joins[IndexOf(network, "b")]);
    REQUIRE(joins[IndexOf(network, "c")]);
    CHECK(joins[IndexOf(network, "c")]->batch_norm == 0U);
    CHECK(joins[IndexOf(network, "c")]->other == TensorSource{Kind::kBetween, 0});  // the first relu
  }
}

TEST_CASE("of two ways with layers the one that ends last looks at the other") {
  const Network network =
      Convolutions("  x = torch.relu(x)\n  y = self.norm(" + Conv("a", "x") + ")\n  z = " + Conv("b", "x") +
                   "\n  y = torch.relu(y + z)\n  y = torch.relu(" + Conv("c", "y") + ")");
  const auto joins = FindJoins(network);
  CHECK_FALSE(joins[IndexOf(network, "a")]);
  REQUIRE(joins[IndexOf(network, "b")]);
  CHECK_FALSE(joins[IndexOf(network, "b")]->batch_norm);
  CHECK(joins[IndexOf(network, "b")]->other == TensorSource{Kind::kBatchNorm, 0});
  CHECK_FALSE(joins[IndexOf(network, "c")]);
}

TEST_CASE("what is no plain sum of whole tensors is no residual connection") {
  for (const std::string sum : {"torch.add(y, x, alpha=2)", "y - x", "y * x", "y + x.mean([2, 3], True)", "y + 1.0",
                                "y + x.transpose(2, 3)", "torch.relu(y) + x"}) {
    const Network network = Convolutions("  x = torch.relu(" + Conv("a", "x") + ")\n  y = " + Conv("b", "x") +
                                         "\n  y = " + sum + "\n  y = " + Conv("c", "y"));
    INFO(sum);
    CHECK_FALSE(FindJoins(network)[IndexOf(network, "b")]);
  }
}

TEST_CASE("an output that is added twice has no one sum to serve") {
  const Network network =
      Convolutions("  x = torch.relu(x)\n  x = torch.relu(" + Conv("a", "x") + ")\n  z = " + Conv("b", "x") +
                   "\n  y = (z + x) * (z + torch.relu(x))\n  y = " + Conv("c", "y"));
  CHECK_FALSE(FindJoins(network)[IndexOf(network, "b")]);
}

TEST_CASE("a tap catches the other terms in another pass with other images") {
  const Network network = Convolutions("  x = torch.relu(" + Conv("a", "x") + ")\n  y = torch.relu(" + Conv("b", "x") +
                                       ")\n  y = self.norm(" + Conv("c", "y") + ")\n  y = y + x");
  const auto joins = FindJoins(network);
  const torch::Tensor images = torch::randn({5, 4, 6, 6});
  torch::Tensor caught;
  bool before_layer = true;
  TapHandlers handlers;
  handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor&) {
    if (layer == IndexOf(network, "c")) before_layer = caught.defined();
  };
  WatchJoins(joins, handlers, [&](std::size_t layer, const torch::Tensor& other) {
    CHECK(layer == IndexOf(network, "c"));
    caught = other;
  });
  torch::jit::Module module = network.module;
  {
    const Tap tap(network, module, std::move(handlers));
    (void)RunForward(module, images);
  }
  REQUIRE(caught.defined());
  CHECK(before_layer);
  const torch::Tensor weight = GetTensor(module, "a.weight");
  CHECK(torch::equal(caught, torch::relu(torch::conv2d(images, weight, {}, 1, 1))));
}

}  // namespace
}  // namespace bitplan
