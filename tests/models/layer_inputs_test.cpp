// Gathered inputs times the weights are the layer's outputs.
#include "bitplan/models/layer_inputs.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/models/tap.h"
#include "models/input_products.h"
#include "models/support.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::MakeModule;

TEST_CASE("gathered inputs times the weights of a convolution are its outputs") {
  torch::manual_seed(3);
  // groups 2, stride (2, 1), padding (1, 2), dilation (1, 2)
  const torch::jit::Module module = MakeModule({{"w", torch::randn({6, 2, 3, 2})}, {"fc", torch::randn({3, 6})}}, R"(
def forward(self, x):
    x = torch.conv2d(x, self.w, None, [2, 1], [1, 2], [1, 2], 2)
    return torch.linear(x.mean([2, 3]), self.fc)
)");
  const Network network = DescribeNetwork(module, "strided", {4, 9, 7});
  const Layer& layer = network.layers[0];
  REQUIRE(HasKnownInputs(layer));
  const torch::Tensor input = torch::randn({5, 4, 9, 7});
  const torch::Tensor output = torch::conv2d(input, GetTensor(module, "w"), {}, {2, 1}, {1, 2}, {1, 2}, 2);
  const std::int64_t positions = InputPositions(layer, input);
  REQUIRE(positions == output.numel() / 6);
  const torch::Tensor inputs = GatherInputs(layer, input, torch::arange(positions));  // [2, positions, 12]
  const torch::Tensor products = inputs.matmul(GetTensor(module, "w").reshape({2, 3, -1}).transpose(1, 2));
  const torch::Tensor expected = output.permute({1, 0, 2, 3}).reshape({2, 3, -1}).transpose(1, 2);
  CHECK(torch::allclose(products, expected, 1e-4, 1e-5));
}

TEST_CASE("all positions when there are few, some of them when there are many") {
  at::Generator generator = at::detail::createCPUGenerator(1);
  CHECK(torch::equal(DrawPositions(5, 8, generator), torch::arange(5)));
  const torch::Tensor drawn = DrawPositions(1000, 50, generator);
  CHECK(drawn.size(0) == 50);
  CHECK(drawn.max().item<std::int64_t>() < 1000);
  CHECK(drawn.min().item<std::int64_t>() >= 0);
  CHECK(drawn.diff().min().item<std::int64_t>() >= 0);  // ascending
  CHECK(drawn.diff().max().item<std::int64_t>() > 1);   // and spread
}

TEST_CASE("products added part by part are those of all columns at once") {
  torch::manual_seed(4);
  const torch::Tensor columns = torch::randn({2, 700, 520}), others = torch::randn({2, 700, 30});
  torch::Tensor squares, products;
  for (std::int64_t begin = 0; begin < 700; begin += 300) {
    const torch::Tensor part = columns.slice(1, begin, std::min<std::int64_t>(begin + 300, 700));
    AddUpperProducts(squares, part);
    AddProducts(products, others.slice(1, begin, std::min<std::int64_t>(begin + 300, 700)), part);
  }
  MirrorUpper(squares);
  CHECK(torch::allclose(squares, columns.transpose(1, 2).matmul(columns), 1e-4, 1e-2));
  CHECK(torch::equal(squares, squares.transpose(1, 2)));
  CHECK(torch::allclose(products, others.transpose(1, 2).matmul(columns), 1e-4, 1e-2));
}

TEST_CASE("the sampled inputs of every layer are those of the float network") {
  const torch::jit::Module module = testing::SmallConvNet();
  const Network network = DescribeNetwork(module, "small", {2, 8, 8});
  const torch::Tensor images = torch::randn({300, 2, 8, 8});
  const auto inputs = SampleLayerInputs(network, images, 1200, 1);
  REQUIRE(inputs.size() == 2);
  CHECK(inputs[0].sizes() == torch::IntArrayRef({1, 1200, 18}));
  CHECK(inputs[1].sizes() == torch::IntArrayRef({1, 300, 4}));  // one row an image: all of them
  torch::Tensor hidden;
  {
    torch::jit::Module run = network.module;
    const Tap tap(network, run,
                  {.on_layer_input =
                       [&](std::size_t layer, const torch::Tensor& input) {
                         if (layer == 1) hidden = input;
                       },
                   .on_layer_output = nullptr,
                   .on_batch_norm_input = nullptr});
    const torch::NoGradGuard no_grad;
    run.forward({images});
  }
  CHECK(torch::allclose(inputs[1][0], hidden, 1e-4, 1e-5));
}

}  // namespace
}  // namespace bitplan
