// Networks whose answers depend on more than the image, and layers that only some images reach.
#include "bitplan/models/answers.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "models/support.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::CatchError;
using testing::MakeModule;

Network Described(const std::string& body) {
  torch::manual_seed(4);
  return DescribeNetwork(MakeModule({{"w", torch::randn({4, 64})}}, "def forward(self, x):\n  " + body + "\n",
                                    {{"mean", torch::zeros(4)}, {"variance", torch::ones(4)}}),
                         "m", {1, 8, 8});
}

std::string Why(const std::string& body) { return WhyAnswersVary(Described(body), torch::rand({16, 1, 8, 8})); }

const std::string kLinear = "torch.linear(x.flatten(1), self.w)";

TEST_CASE("answers that depend on the image alone are not accused") {
  CHECK(Why("return " + kLinear) == "");
  // The same infinity in every answer is no difference.
  CHECK(Why("return " + kLinear + " + torch.tensor([0.0, 0.0, 0.0, float('-inf')])") == "");
  CHECK(Why("return torch.dropout(" + kLinear + ", 0.5, False)") == "");
}

TEST_CASE("what answers depend on is named, with its remedy") {
  CHECK_THAT(Why("return torch.dropout(" + kLinear + ", 0.5, True)"),
             ContainsSubstring("one pass over the same images to the next") && ContainsSubstring("dropout is active"));
  CHECK_THAT(Why("x = " + kLinear + "\n  return x + torch.rand_like(x)"), ContainsSubstring("aten::rand_like"));
  CHECK_THAT(Why("x = " + kLinear + "\n  return x - x.mean([0])"), ContainsSubstring("looks at the whole batch"));
  CHECK_THAT(Why("return torch.batch_norm(" + kLinear +
                 ", None, None, self.mean, self.variance, True, 0.1, 1e-5, "
                 "False)"),
             ContainsSubstring("depend on the other images") && ContainsSubstring(".eval() before tracing"));
}

TEST_CASE("statistics that every pass moves are put back") {
  const Network network = Described("return torch.batch_norm(" + kLinear +
                                    ", None, None, self.mean, self.variance, True, 0.1, 1e-5, False)");
  CHECK(network.batch_norms.empty());  // its running statistics are not used
  REQUIRE(network.changed_by_forward.size() == 2);
  (void)WhyAnswersVary(network, torch::rand({16, 1, 8, 8}));
  CHECK(torch::equal(GetTensor(network.module, "mean"), torch::zeros(4)));
  CHECK(torch::equal(GetTensor(network.module, "variance"), torch::ones(4)));
}

TEST_CASE("a model that takes batches of one size only says so") {
  CHECK_THAT(CatchError([] { Described("return torch.linear(x.reshape([1, 64]), self.w)"); }).message,
             ContainsSubstring("batches of 1 image only"));
  CHECK_THAT(CatchError([] { Described("return torch.linear(x.reshape([6, 64]), self.w)"); }).message,
             ContainsSubstring("batches of 6 images only"));
}

TEST_CASE("a layer that only some images reach is a layer") {
  torch::manual_seed(4);
  const auto module = MakeModule({{"first", torch::randn({6, 64})},
                                  {"rare", torch::randn({6, 6})},
                                  {"never", torch::randn({6, 6})},
                                  {"last", torch::randn({4, 6})}},
                                 R"(
def forward(self, x):
    h = torch.linear(x.flatten(1), self.first)
    bright = x.mean([1, 2, 3]) > 0.9
    if bool(bright.any()):
        h = torch.where(bright.unsqueeze(1), torch.linear(h, self.rare), h)
    return torch.linear(h, self.last)
)");
  torch::Tensor images = torch::rand({100, 1, 8, 8}) * 0.5;
  CHECK(DescribeNetwork(module, "m", {1, 8, 8}, images).layers.size() == 2);
  images[70].fill_(1.0);
  const Network network = DescribeNetwork(module, "m", {1, 8, 8}, images);
  REQUIRE(network.layers.size() == 3);
  CHECK(network.has_rare_layers);
  CHECK(network.layers[1].name == "rare");  // in the order of execution
  REQUIRE(network.left_in_float.size() == 1);
  CHECK(network.left_in_float[0].parameter == "never");
  CHECK(WhyAnswersVary(network, images) == "");
}

TEST_CASE("attention as one operation is avoided where the model lets us, and refused where it does not") {
  const testing::TemporaryFolder folder;
  const std::string fused =
      "torch._native_multi_head_attention(x, x, x, 8, 2, self.qkv, self.qkv_bias, self.out, self.out_bias)[0]";
  const auto save = [&](const std::string& body) {
    torch::manual_seed(4);
    MakeModule({{"qkv", torch::randn({24, 8})},
                {"qkv_bias", torch::randn(24)},
                {"out", torch::randn({8, 8})},
                {"out_bias", torch::randn(8)},
                {"fc", torch::randn({4, 8})}},
               "def forward(self, x):\n  x = x.squeeze(1)\n" + body + "  return torch.linear(x.mean([1]), self.fc)\n")
        .save((folder / "m.pt").string());
    return LoadModule(folder / "m.pt");
  };
  const auto chosen = save(
      "  if torch.is_grad_enabled() and self.qkv.requires_grad:\n    x = torch.linear(torch.linear(x, "
      "self.qkv, self.qkv_bias)[:, :, :8], self.out, self.out_bias)\n  else:\n    x = " +
      fused + "\n");
  CHECK(DescribeNetwork(chosen, "m", {1, 8, 8}).layers.size() == 3);
  const auto always = save("  x = " + fused + "\n");
  CHECK_THAT(CatchError([&] {
               (void)DescribeNetwork(always, "m", {1, 8, 8});
             }).message,
             ContainsSubstring("one operation") && ContainsSubstring("torch.no_grad()"));
}

}  // namespace
}  // namespace bitplan
