#include "bitplan/models/tap.h"

#include <numeric>

#include "bitplan/models/architectures.h"
#include "models/support.h"

namespace bitplan {
namespace {

struct Seen {
  std::vector<std::size_t> inputs, outputs, batch_norms;
};

TapHandlers Recorder(Seen& seen) {
  return {.on_layer_input = [&](std::size_t index, const torch::Tensor&) { seen.inputs.push_back(index); },
          .on_layer_output = [&](std::size_t index, const torch::Tensor&) { seen.outputs.push_back(index); },
          .on_batch_norm_input = [&](std::size_t index, const torch::Tensor&) { seen.batch_norms.push_back(index); }};
}

TEST_CASE("a tap sees the input and the output of every layer, in order") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module clone = CloneModule(network.module);
  const torch::Tensor input = torch::randn({3, 2, 8, 8});
  std::vector<torch::Tensor> inputs, outputs;
  torch::Tensor logits;
  {
    const Tap tap(network, clone,
                  {.on_layer_input = [&](std::size_t, const torch::Tensor& x) { inputs.push_back(x); },
                   .on_layer_output = [&](std::size_t, const torch::Tensor& y) { outputs.push_back(y); },
                   .on_batch_norm_input = nullptr});
    logits = clone.forward({input}).toTensor();
  }
  REQUIRE(inputs.size() == 2);
  REQUIRE(outputs.size() == 2);
  CHECK(inputs[0].equal(input));
  CHECK(outputs[0].allclose(torch::conv2d(input, GetTensor(clone, "conv"), GetTensor(clone, "conv_bias"))));
  CHECK(outputs[1].equal(logits));
}

TEST_CASE("a tap sees every layer once on every run, before and after TorchScript optimizes the module") {
  for (const char* name : {"lenet5-caffe", "resnet20"}) {
    const Architecture& architecture = FindArchitecture(name);
    const Network network = DescribeNetwork(BuildArchitecture(name, 1), name, architecture.input_shape);
    std::vector<std::int64_t> shape = architecture.input_shape;
    shape.insert(shape.begin(), 2);
    torch::jit::Module module = network.module;
    std::vector<std::size_t> layers(network.layers.size()), batch_norms(network.batch_norms.size());
    std::iota(layers.begin(), layers.end(), std::size_t{0});
    std::iota(batch_norms.begin(), batch_norms.end(), std::size_t{0});
    const auto check = [&] {
      Seen seen;
      {
        const Tap tap(network, module, Recorder(seen));
        (void)module.forward({torch::randn(shape)});
      }
      CHECK(seen.inputs == layers);
      CHECK(seen.outputs == layers);
      CHECK(seen.batch_norms == batch_norms);
    };
    for (const bool gradients : {false, true}) {
      for (auto parameter : module.parameters()) parameter.set_requires_grad(gradients);
      for (int run = 0; run < 4; ++run) check();
      for (int run = 0; run < 4; ++run) (void)module.forward({torch::randn(shape)});  // profiled, then optimized
      for (int run = 0; run < 2; ++run) check();
    }
  }
}

TEST_CASE("statistics written by the handler are used by that very batch norm") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module clone = CloneModule(network.module);
  const torch::Tensor input = torch::randn({3, 2, 8, 8});
  torch::NoGradGuard no_grad;
  torch::Tensor tapped;
  {
    const Tap tap(network, clone,
                  {.on_layer_input = nullptr,
                   .on_layer_output = nullptr,
                   .on_batch_norm_input = [&](std::size_t, const torch::Tensor& x) {
                     GetTensor(clone, "mean").copy_(x.mean({0, 2, 3}));
                     GetTensor(clone, "variance").copy_(x.var(at::IntArrayRef{0, 2, 3}, false));
                   }});
    tapped = clone.forward({input}).toTensor();
  }
  CHECK(tapped.allclose(clone.forward({input}).toTensor()));
  torch::jit::Module original = network.module;
  CHECK_FALSE(tapped.allclose(original.forward({input}).toTensor()));
}

TEST_CASE("handlers may run operations on the very weights without being called again") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module module = network.module;
  int calls = 0;
  {
    const Tap tap(network, module,
                  {.on_layer_input =
                       [&](std::size_t index, const torch::Tensor& x) {
                         ++calls;
                         if (index == 0) (void)torch::conv2d(x, GetTensor(module, "conv"));
                       },
                   .on_layer_output =
                       [&](std::size_t, const torch::Tensor&) {
                         (void)torch::linear(torch::ones({1, 4}), GetTensor(module, "fc"));
                       },
                   .on_batch_norm_input = nullptr});
    (void)module.forward({torch::randn({3, 2, 8, 8})});
  }
  CHECK(calls == 2);
}

TEST_CASE("a backward pass under the tap reports no layers") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module module = network.module;
  for (auto parameter : module.parameters()) parameter.set_requires_grad(true);
  Seen seen;
  {
    const Tap tap(network, module, Recorder(seen));
    module.forward({torch::randn({3, 2, 8, 8}).requires_grad_()}).toTensor().sum().backward();
  }
  CHECK(seen.inputs == std::vector<std::size_t>{0, 1});
}

TEST_CASE("a weight used twice is reported twice, also when it is multiplied transposed") {
  const auto module = testing::MakeModule({{"weight", torch::randn({5, 5})}}, R"(
def forward(self, x):
    return torch.matmul(torch.linear(x, self.weight), self.weight.t())
)");
  const Network network = DescribeNetwork(module, "tied", {5});
  Seen seen;
  {
    const Tap tap(network, network.module, Recorder(seen));
    torch::jit::Module run = network.module;
    (void)run.forward({torch::randn({2, 5})});
  }
  CHECK(seen.inputs == std::vector<std::size_t>{0, 0});
  CHECK(seen.outputs == std::vector<std::size_t>{0, 0});
}

TEST_CASE("after the tap's life nothing is reported, and a module that is not watched never is") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module watched = network.module, other = CloneModule(network.module);
  Seen seen;
  {
    const Tap tap(network, watched, Recorder(seen));
    (void)other.forward({torch::randn({1, 2, 8, 8})});
  }
  (void)watched.forward({torch::randn({1, 2, 8, 8})});
  CHECK(seen.inputs.empty());
  CHECK(seen.batch_norms.empty());
}

TEST_CASE("what a handler throws leaves through the end of the tap") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module module = network.module;
  const auto run = [&] {
    const Tap tap(
        network, module,
        {.on_layer_input = [](std::size_t, const torch::Tensor&) { throw Error(ErrorKind::kInterrupted, "stop"); },
         .on_layer_output = nullptr,
         .on_batch_norm_input = nullptr});
    (void)module.forward({torch::randn({1, 2, 8, 8})});
  };
  CHECK(testing::CatchError(run).kind == ErrorKind::kInterrupted);
}

TEST_CASE("a second tap on the same thread is refused and the first one keeps working") {
  const Network network = DescribeNetwork(testing::SmallConvNet(), "small", {2, 8, 8});
  torch::jit::Module module = network.module;
  Seen seen;
  {
    const Tap tap(network, module, Recorder(seen));
    CHECK(testing::CatchError([&] { const Tap second(network, module, {}); }).kind == ErrorKind::kInternal);
    (void)module.forward({torch::randn({1, 2, 8, 8})});
  }
  CHECK(seen.inputs.size() == 2);
}

}  // namespace
}  // namespace bitplan
