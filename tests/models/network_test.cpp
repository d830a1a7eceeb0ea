#include <algorithm>
#include <fstream>
#include <limits>

#include "models/support.h"

namespace bitplan {
namespace {

using testing::CatchError;
using testing::MakeModule;

void WriteText(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

TEST_CASE("a model saved and loaded again has the same hash, and one changed weight changes it") {
  const testing::TemporaryFolder folder;
  torch::jit::Module module = testing::SmallConvNet();
  SaveModule(module, folder / "a.pt");
  SaveModule(LoadModule(folder / "a.pt"), folder / "b.pt");
  CHECK(ModelHash(LoadModule(folder / "b.pt")) == ModelHash(module));
  const std::string before = ModelHash(module);
  GetTensor(module, "fc")[0][0] += 1e-6;
  CHECK(ModelHash(module) != before);
}

TEST_CASE("the same weights with other code, constants or attributes are another model") {
  const auto hash_of = [](const std::string& body, double slope = 0.5) {
    torch::jit::Module module("net");
    module.register_parameter("fc", torch::ones({2, 4}), false);
    module.register_attribute("slope", c10::FloatType::get(), slope);
    module.define("def forward(self, x):\n" + body);
    return ModelHash(module);
  };
  const std::string plain = hash_of("  h = torch.flatten(x, 1)\n  return torch.linear(h, self.fc)\n");
  CHECK(hash_of("  other_name = torch.flatten(x, 1)\n  return torch.linear(other_name, self.fc)\n") == plain);
  CHECK(hash_of("  h = torch.flip(torch.flatten(x, 1), [1])\n  return torch.linear(h, self.fc)\n") != plain);
  CHECK(hash_of("  h = torch.flatten(x, 1)\n  return torch.linear(torch.relu(h), self.fc)\n") != plain);
  CHECK(hash_of("  h = torch.flatten(x, 1)\n  return torch.linear(h, self.fc)\n", 0.25) != plain);
  // A constant, the order of operands, and which of two equal operations is read.
  CHECK(hash_of("  return torch.linear(torch.flatten(x, 1) + 1.0, self.fc)\n") !=
        hash_of("  return torch.linear(torch.flatten(x, 1) + 2.0, self.fc)\n"));
  CHECK(hash_of("  a = x - 1\n  b = x * 2\n  return torch.linear(torch.flatten(a - b, 1), self.fc)\n") !=
        hash_of("  a = x - 1\n  b = x * 2\n  return torch.linear(torch.flatten(b - a, 1), self.fc)\n"));
  CHECK(hash_of("  a = torch.rand_like(x)\n  b = torch.rand_like(x)\n  return torch.linear(torch.flatten(a - b, 1), "
                "self.fc)\n") != hash_of("  a = torch.rand_like(x)\n  b = torch.rand_like(x)\n  return "
                                         "torch.linear(torch.flatten(a - a, 1), self.fc)\n"));
  // Inside a branch and in a called method.
  CHECK(hash_of("  if x.size(0) > 1:\n    x = x + 1\n  return torch.linear(torch.flatten(x, 1), self.fc)\n") !=
        hash_of("  if x.size(0) > 1:\n    x = x - 1\n  return torch.linear(torch.flatten(x, 1), self.fc)\n"));
}

TEST_CASE("code that is called three levels down belongs to a model's hash") {
  const auto hash_of = [](const char* innermost) {
    torch::jit::Module inner("inner"), middle("middle"), outer("outer");
    inner.define(std::string("def forward(self, x):\n  return ") + innermost + "\n");
    middle.register_module("inner", inner);
    middle.define("def forward(self, x):\n  return self.inner.forward(x) * 2\n");
    outer.register_module("middle", middle);
    outer.define("def forward(self, x):\n  return self.middle.forward(x) + 1\n");
    return ModelHash(outer);
  };
  CHECK(hash_of("x + 3") == hash_of("x + 3"));
  CHECK(hash_of("x + 3") != hash_of("x + 4"));
}

TEST_CASE("code keeps its hash through a file, branches and loops included") {
  const testing::TemporaryFolder folder;
  torch::jit::Module module("net");
  module.register_parameter("fc", torch::ones({2, 4}), false);
  module.define(R"(
def forward(self, x):
  parts = [x, x * 2]
  parts.append(torch.relu(x))
  total = torch.zeros_like(x)
  for i in range(len(parts)):
    if i % 2 == 0:
      total = total + parts[i]
    else:
      total = total - parts[i]
  return torch.linear(torch.flatten(total, 1), self.fc)
)");
  SaveModule(module, folder / "a.pt");
  const torch::jit::Module first = LoadModule(folder / "a.pt");
  SaveModule(CloneModule(first), folder / "b.pt");
  CHECK(ModelHash(LoadModule(folder / "b.pt")) == ModelHash(first));
  CHECK(ModelHash(first) == ModelHash(module));
}

TEST_CASE("the same model saved under two names gives the same bytes") {
  const testing::TemporaryFolder folder;
  const torch::jit::Module module = testing::SmallConvNet();
  SaveModule(module, folder / "a.pt");
  SaveModule(module, folder / "other.pt");
  const auto bytes = [](const std::filesystem::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  CHECK(bytes(folder / "a.pt") == bytes(folder / "other.pt"));
}

TEST_CASE("a clone shares no storage with its original") {
  torch::jit::Module module = testing::SmallConvNet();
  torch::jit::Module clone = CloneModule(module);
  const torch::Tensor before = GetTensor(module, "conv").clone();
  GetTensor(clone, "conv").zero_();
  GetTensor(clone, "mean").fill_(7);
  CHECK(GetTensor(module, "conv").equal(before));
  CHECK(GetTensor(module, "mean").eq(0).all().item<bool>());
  SetTensor(clone, "fc", torch::zeros({3, 4}));
  CHECK_FALSE(GetTensor(module, "fc").eq(0).any().item<bool>());
}

TEST_CASE("a clone keeps ties, and does not tie views of one buffer") {
  const torch::Tensor flat = torch::randn({12});
  const auto module =
      MakeModule({{"a", flat.slice(0, 0, 4)}, {"b", flat.slice(0, 4, 8)}, {"tied", flat.slice(0, 0, 4)}},
                 "def forward(self, x):\n    return x\n");
  torch::jit::Module clone = CloneModule(module);
  CHECK(GetTensor(clone, "b").equal(GetTensor(module, "b")));
  GetTensor(clone, "a").zero_();
  CHECK(GetTensor(clone, "tied").eq(0).all().item<bool>());
  CHECK(GetTensor(clone, "b").equal(GetTensor(module, "b")));
  CHECK(GetTensor(module, "a").equal(flat.slice(0, 0, 4)));
}

TEST_CASE("a clone of a module with a sampled weight is made of leaves") {
  torch::jit::Module module = testing::SmallConvNet();
  const torch::Tensor mean = torch::zeros({3, 4}).requires_grad_();
  SetTensor(module, "fc", mean * 2);
  CHECK(GetTensor(CloneModule(module), "fc").is_leaf());
}

TEST_CASE("gradients flow through a tensor put into a weight slot") {
  torch::jit::Module module = testing::SmallConvNet();
  const torch::Tensor rho = torch::zeros({3, 4}).requires_grad_();
  SetTensor(module, "fc", GetTensor(module, "fc") + torch::softplus(rho));
  module.forward({torch::randn({2, 2, 8, 8})}).toTensor().sum().backward();
  CHECK(rho.grad().abs().sum().item<double>() > 0);
}

TEST_CASE("setting a tied weight sets it under both names") {
  const torch::Tensor shared = torch::randn({2, 2});
  torch::jit::Module module =
      MakeModule({{"a", shared}, {"b", shared}, {"c", torch::randn({2, 2})}}, "def forward(self, x):\n    return x\n");
  SetTensor(module, "b", torch::ones({2, 2}));
  CHECK(GetTensor(module, "a").eq(1).all().item<bool>());
  CHECK_FALSE(GetTensor(module, "c").eq(1).all().item<bool>());
}

TEST_CASE("a path that is not in the model is named") {
  const torch::jit::Module module = testing::SmallConvNet();
  CHECK(CatchError([&] { (void)GetTensor(module, "features.3.weight"); }).message.find("features.3.weight") !=
        std::string::npos);
  CHECK(CatchError([&] { (void)GetTensor(module, "fc2"); }).kind == ErrorKind::kData);
}

TEST_CASE("a missing model file is not found") {
  CHECK(CatchError([] { (void)LoadModule("no/such/model.pt"); }).kind == ErrorKind::kNotFound);
}

TEST_CASE("empty and corrupt model files are refused on one line") {
  const testing::TemporaryFolder folder;
  WriteText(folder / "empty.pt", "");
  WriteText(folder / "text.pt", "this is no model\nat all\n");
  SaveModule(testing::SmallConvNet(), folder / "cut.pt");
  std::filesystem::resize_file(folder / "cut.pt", std::filesystem::file_size(folder / "cut.pt") / 2);
  for (const std::string name : {"empty.pt", "text.pt", "cut.pt"}) {
    const auto caught = CatchError([&] { (void)LoadModule(folder / name); });
    INFO(caught.message);
    CHECK(caught.kind == ErrorKind::kData);
    CHECK(caught.message.find(name) != std::string::npos);
    CHECK(std::count(caught.message.begin(), caught.message.end(), '\n') == 0);
    CHECK(caught.message.size() < 400);
  }
}

TEST_CASE("a model with a weight that is not finite is refused and the weight is named") {
  const testing::TemporaryFolder folder;
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    torch::jit::Module module = testing::SmallConvNet();
    GetTensor(module, "conv")[1][0][2][2] = bad;
    SaveModule(module, folder / "bad.pt");
    const auto caught = CatchError([&] { (void)LoadModule(folder / "bad.pt"); });
    CHECK(caught.kind == ErrorKind::kData);
    CHECK(caught.message.find("'conv'") != std::string::npos);
  }
}

TEST_CASE("a half-precision model is loaded in float32 and its counters stay integers") {
  const testing::TemporaryFolder folder;
  const auto module = MakeModule({{"weight", torch::ones({2, 2}, torch::kHalf)}},
                                 "def forward(self, x):\n    return x\n", {{"count", torch::zeros({}, torch::kLong)}});
  SaveModule(module, folder / "half.pt");
  const auto loaded = LoadModule(folder / "half.pt");
  CHECK(GetTensor(loaded, "weight").scalar_type() == torch::kFloat);
  CHECK(GetTensor(loaded, "count").scalar_type() == torch::kLong);
}

TEST_CASE("a failed save leaves the old file as it was") {
  const testing::TemporaryFolder folder;
  const auto caught = CatchError([&] { SaveModule(testing::SmallConvNet(), folder / "missing" / "a.pt"); });
  CHECK(caught.kind == ErrorKind::kIo);
}

TEST_CASE("a mask of -inf in a buffer is loaded, and a weight too large for float32 squares is refused by name") {
  const testing::TemporaryFolder folder;
  const torch::Tensor mask = torch::full({4, 4}, -std::numeric_limits<float>::infinity()).triu(1);
  torch::jit::Module module =
      MakeModule({{"weight", torch::ones({4, 4})}},
                 "def forward(self, x):\n"
                 "    return (x.unsqueeze(2) + self.mask).softmax(2).sum(1).matmul(self.weight)\n",
                 {{"mask", mask}});
  SaveModule(module, folder / "masked.pt");
  const torch::jit::Module loaded = LoadModule(folder / "masked.pt");
  CHECK(torch::equal(GetTensor(loaded, "mask"), mask));
  CHECK(DescribeNetwork(loaded, "masked", {4}).layers.size() == 1);

  GetTensor(module, "weight")[0][0] = 1e20;
  const auto caught = CatchError([&] { (void)DescribeNetwork(module, "large", {4}); });
  CHECK(caught.kind == ErrorKind::kData);
  CHECK(caught.message.find("'weight' holds weights as large as 1e+20") != std::string::npos);
}

}  // namespace
}  // namespace bitplan
