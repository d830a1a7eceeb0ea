// Which rows of a layer's input come from which image.
#include "bitplan/models/image_rows.h"

#include <torch/types.h>

#include "models/support.h"
#include "support/catch_torch.h"
#include "support/networks.h"

namespace bitplan {
namespace {

TEST_CASE("the rows of an image are found wherever they lie") {
  const torch::Tensor images = testing::RandomImages(testing::ImagesFirst(), 20).images;
  const torch::Tensor values = torch::arange(5 * 8 * 3).to(torch::kFloat32).reshape({5, 8, 3});  // [N, T, C]
  const torch::Tensor wanted = values.slice(0, 1, 4);
  const auto sorted = [](const torch::Tensor& rows) { return std::get<0>(rows.reshape({-1, 3}).sort(0)); };
  const ImageRows first(testing::ImagesFirst(), images);
  CHECK(torch::equal(first.Of(0, values, 5, 1, 4), wanted.reshape({-1, 3})));
  const ImageRows second(testing::RowsFirst(), images);
  REQUIRE(second.Known(0));
  CHECK(torch::equal(sorted(second.Of(0, values.transpose(0, 1), 5, 1, 4)), sorted(wanted)));
  const ImageRows merged(testing::RowsFirstMerged(), images);
  CHECK(torch::equal(sorted(merged.Of(0, values.transpose(0, 1).reshape({-1, 3}), 5, 1, 4)), sorted(wanted)));
  CHECK(merged.Fits(0, torch::zeros({40, 3}), 5));
  CHECK_FALSE(merged.Fits(0, torch::zeros({39, 3}), 5));
}

TEST_CASE("rows that depend on the other images of the batch belong to none") {
  const Network network = testing::RowNetwork("x - x.mean([0])", "h");
  const ImageRows rows(network, testing::RandomImages(network, 20).images);
  CHECK_FALSE(rows.Known(0));
}

TEST_CASE("parts of images that a convolution gets one by one are told apart") {
  torch::manual_seed(2);
  const auto network = [](const std::string& parts) {
    return DescribeNetwork(
        testing::MakeModule({{"w", torch::randn({4, 1, 3, 3})}, {"fc", torch::randn({3, 4})}},
                            "def forward(self, x):\n  x = " + parts +
                                "\n  h = torch.conv2d(x, self.w).mean([2, 3]).reshape([2, -1, 4]).sum([0])\n"
                                "  return torch.linear(h, self.fc)\n"),
        "parts", {2, 8, 8});
  };
  const torch::Tensor images = torch::randn({12, 2, 8, 8}), values = torch::randn({12, 4, 6, 6});
  const ImageRows parts_first(network("x.transpose(0, 1).reshape([-1, 1, 8, 8])"), images);
  REQUIRE(parts_first.Known(0));
  CHECK(torch::equal(parts_first.Of(0, values, 6, 1, 2), torch::stack({values[1], values[7]})));
}

}  // namespace
}  // namespace bitplan
