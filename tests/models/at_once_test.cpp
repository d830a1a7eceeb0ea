#include "bitplan/models/at_once.h"

#include "bitplan/models/architectures.h"
#include "support/catch_torch.h"

using namespace bitplan;

namespace {

std::int64_t AtOnce(const std::string& architecture, const std::vector<std::int64_t>& shape) {
  return ImagesAtOnce(DescribeNetwork(BuildArchitecture(architecture, 1), architecture, shape));
}

}  // namespace

TEST_CASE("the images of a correction pass the built-in networks at once, as they always have") {
  CHECK(AtOnce("vgg16-bn", {3, 32, 32}) == 1024);  // 64 channels of 32 x 32
  CHECK(AtOnce("resnet20", {3, 32, 32}) == 4096);
  CHECK(AtOnce("lenet5", {1, 28, 28}) >= 1024);
}

TEST_CASE("large images pass in numbers that do not take more memory than small ones") {
  Network network;
  network.input_shape = {3, 112, 112};
  Layer layer;
  layer.shape = {32, 3, 3, 3};
  layer.kind = "conv2d";
  layer.output_values = std::int64_t{32} * 112 * 112;
  layer.uses = 1;
  network.layers = {layer};
  CHECK(ImagesAtOnce(network) == kValuesAtOnce / (32 * 112 * 112));
  network.layers[0].uses = 2;  // two passes of half the size each
  CHECK(ImagesAtOnce(network) == kValuesAtOnce / (32 * 112 * 112 / 2));
  network.layers.clear();
  CHECK(ImagesAtOnce(network) == kValuesAtOnce / (3 * 112 * 112));
  network.input_shape = {1, 30000, 30000};
  CHECK(ImagesAtOnce(network) == 1);
}
