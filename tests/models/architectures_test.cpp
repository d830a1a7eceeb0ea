#include "bitplan/models/architectures.h"

#include <algorithm>

#include "models/support.h"

namespace bitplan {
namespace {

TEST_CASE("every architecture has the published number of weights, names and output") {
  struct Expected {
    const char* name;
    std::int64_t weights;
    std::size_t layers, batch_norms;
    const char* first;
    const char* last;
  };
  const std::vector<Expected> expected = {{"lenet5", 61470, 5, 0, "conv1", "fc3"},
                                          {"lenet5-caffe", 430500, 4, 0, "conv1", "fc2"},
                                          {"lenet-300-100", 266200, 3, 0, "fc1", "fc3"},
                                          {"resnet20", 268336, 20, 19, "conv1", "linear"},
                                          {"vgg16-bn", 14715584, 14, 13, "features.0", "classifier"}};
  REQUIRE(Architectures().size() == expected.size());
  for (const Expected& entry : expected) {
    INFO(entry.name);
    const Architecture& architecture = FindArchitecture(entry.name);
    const Network network = DescribeNetwork(BuildArchitecture(entry.name, 1), entry.name, architecture.input_shape);
    CHECK(network.quantizable_weights() == entry.weights);
    CHECK(network.layers.size() == entry.layers);
    CHECK(network.batch_norms.size() == entry.batch_norms);
    CHECK(network.layers.front().name == entry.first);
    CHECK(network.layers.back().name == entry.last);
    CHECK(network.layers.back().output_channels() == architecture.classes);
    for (const FloatParameter& parameter : network.left_in_float) {
      CHECK(parameter.weight == (parameter.reason != "batch norm statistics"));
      CHECK((parameter.reason == "bias" || parameter.reason.starts_with("batch norm")));
    }
  }
}

TEST_CASE("the same seed gives the same initial weights, another seed others") {
  const std::string first = ModelHash(BuildArchitecture("lenet5-caffe", 1));
  CHECK(ModelHash(BuildArchitecture("lenet5-caffe", 1)) == first);
  CHECK(ModelHash(BuildArchitecture("lenet5-caffe", 2)) != first);
}

TEST_CASE("batch norm uses the statistics of the batch in training mode and the stored ones in evaluation mode") {
  torch::jit::Module module = BuildArchitecture("resnet20", 1);
  torch::NoGradGuard no_grad;
  const torch::Tensor input = torch::randn({8, 3, 32, 32}) * 3;
  (void)module.forward({input});
  CHECK(GetTensor(module, "bn1.running_mean").eq(0).all().item<bool>());
  SetTraining(module, true);
  (void)module.forward({input});
  CHECK_FALSE(GetTensor(module, "bn1.running_mean").eq(0).any().item<bool>());
}

TEST_CASE("an architecture survives saving and loading") {
  const testing::TemporaryFolder folder;
  for (const Architecture& architecture : Architectures()) {
    if (std::string(architecture.name) == "vgg16-bn") continue;  // 59 MB say nothing that ResNet-20 does not
    torch::jit::Module module = BuildArchitecture(architecture.name, 3);
    SaveModule(module, folder / "model.pt");
    torch::jit::Module loaded = LoadModule(folder / "model.pt");
    std::vector<std::int64_t> shape = architecture.input_shape;
    shape.insert(shape.begin(), 2);
    const torch::Tensor input = torch::randn(shape);
    CHECK(loaded.forward({input}).toTensor().equal(module.forward({input}).toTensor()));
    CHECK(loaded.hasattr("training"));
  }
}

TEST_CASE("an unknown architecture is refused with the known names and the nearest") {
  const auto caught = testing::CatchError([] { (void)BuildArchitecture("lenet5-cafe", 1); });
  CHECK(caught.kind == ErrorKind::kUsage);
  CHECK(caught.message.find("resnet20") != std::string::npos);
  CHECK(caught.message.find("nearest: lenet5-caffe") != std::string::npos);
}

}  // namespace
}  // namespace bitplan
