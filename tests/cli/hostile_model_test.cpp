// Models that nobody should bring: every sub-command answers with a result or with one line that a user can act on.
#include <torch/csrc/jit/serialization/import.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "bitplan/io/plan.h"
#include "bitplan/models/network.h"
#include "cli/program.h"
#include "support/catch_torch.h"

using namespace bitplan::test;

namespace {

constexpr const char* kLogits = "torch.linear(x.flatten(1), self.weight)";

torch::jit::Module Linear(const std::string& body, const std::string& arguments = "x") {
  torch::manual_seed(1);
  torch::jit::Module module("hostile");
  module.register_parameter("weight", torch::randn({4, 784}) * 0.05, false);
  if (!body.empty()) module.define("def forward(self, " + arguments + "):\n  " + body + "\n");
  return module;
}

torch::jit::Module WithWeight(const torch::Tensor& weight, const std::string& body) {
  torch::jit::Module module("hostile");
  module.register_parameter("weight", weight, false);
  module.define("def forward(self, x):\n  " + body + "\n");
  return module;
}

std::string Return(const std::string& expression) { return "return " + expression; }

// Batch norm that normalizes with the statistics of the batch and moves its running ones, as a trace in training mode.
torch::jit::Module TrainingModeBatchNorm() {
  torch::jit::Module module = Linear("");
  module.register_buffer("mean", torch::zeros(4));
  module.register_buffer("variance", torch::ones(4));
  module.define(R"(
def forward(self, x):
  x = torch.linear(x.flatten(1), self.weight)
  return torch.batch_norm(x, None, None, self.mean, self.variance, True, 0.1, 1e-5, False)
)");
  return module;
}

torch::jit::Module MklDnnWeight() {
  torch::jit::Module module("hostile");
  module.register_buffer("weight", torch::randn({4, 784}).to_mkldnn());
  module.register_attribute("training", c10::BoolType::get(), false);
  module.define(R"(
def forward(self, x):
  return torch.linear(x.flatten(1), self.weight.to_dense())
def __getstate__(self):
  return (self.weight.to_dense(), self.training)
def __setstate__(self, state: Tuple[Tensor, bool]):
  self.weight = state[0].to_mkldnn()
  self.training = state[1]
)");
  return module;
}

struct Hostile {
  const char* name;
  std::function<torch::jit::Module()> make;
  int code;          // of `run`
  const char* says;  // in its error line
};

const std::vector<Hostile>& HostileModels() {
  static const std::vector<Hostile> list = {
      {"one image only", [] { return Linear("return torch.linear(x.reshape([1, 784]), self.weight)"); }, 65,
       "batches of 1 image only"},
      {"four images only", [] { return Linear("return torch.linear(x.reshape([4, 784]), self.weight)"); }, 65,
       "batches of 4 images only"},
      {"no forward", [] { return Linear(""); }, 65, "no forward"},
      {"two inputs", [] { return Linear(Return(kLogits), "x, y"); }, 65, "y"},
      {"returns None", [] { return Linear("torch.relu(x)\n  return None"); }, 65, "returns"},
      {"returns a tuple", [] { return Linear("return (" + std::string(kLogits) + ", x)"); }, 65, "tuple"},
      {"returns a dictionary", [] { return Linear("return {'logits': " + std::string(kLogits) + "}"); }, 65,
       "dictionary"},
      {"returns a number", [] { return Linear(Return(std::string(kLogits) + ".sum()")); }, 65, "shape"},
      {"raises", [] { return Linear("assert False, 'no images today'\n  return x"); }, 65, "no images today"},
      {"raises on some images",
       [] {
         return Linear("assert not bool((x.mean([1, 2, 3]) > 0.252).any()), 'too bright'\n  return " +
                       std::string(kLogits));
       },
       65, "too bright"},
      {"sparse weight",
       [] {
         return WithWeight(torch::randn({4, 784}).to_sparse(),
                           "return torch.linear(x.flatten(1), self.weight.to_dense())");
       },
       65, "sparse"},
      {"MKL-DNN weight", [] { return MklDnnWeight(); }, 65, "MKL-DNN"},
      {"complex weight",
       [] {
         return WithWeight(torch::randn({784, 4}, torch::kComplexFloat),
                           "return torch.real(torch.matmul(x.flatten(1) * self.weight[0, 0], self.weight))");
       },
       65, "complex"},
      {"half weight",
       [] {
         return WithWeight(torch::randn({4, 784}).to(torch::kHalf), Return(kLogits));
       },
       0, ""},
      {"half activations",
       [] {
         return WithWeight(torch::randn({4, 784}).to(torch::kHalf),
                           "return torch.linear(x.flatten(1).half(), self.weight)");
       },
       65, "does not take"},
      {"active dropout", [] { return Linear("return torch.dropout(" + std::string(kLogits) + ", 0.5, True)"); }, 65,
       "dropout"},
      {"random numbers", [] { return Linear("x = " + std::string(kLogits) + "\n  return x + torch.rand_like(x)"); }, 65,
       "random"},
      {"batch statistics", TrainingModeBatchNorm, 65, "batch norms"},
      {"looks at the batch", [] { return Linear("x = " + std::string(kLogits) + "\n  return x - x.mean([0])"); }, 65,
       "other images"},
      {"prints and loops",
       [] {
         return Linear("print('hello')\n  for i in range(3):\n    x = torch.relu(x)\n  return " + std::string(kLogits));
       },
       0, ""},
      {"integer answers", [] { return Linear(Return(std::string(kLogits) + ".long()")); }, 65, "logits"},
      {"NaN answers", [] { return Linear(Return(std::string(kLogits) + " * float('nan')")); }, 65, ""},
      {"no classes", [] { return Linear(Return(std::string(kLogits) + "[:, :0]")); }, 65, "classes"},
      {"one answer for all", [] { return Linear(Return(std::string(kLogits) + ".mean([0], True)")); }, 65, "batches"},
  };
  return list;
}

}  // namespace

TEST_CASE("hostile models: every sub-command says in one line what is wrong, or works") {
  const Workplace place;
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  const std::string recipe = place.recipe();
  const std::vector<std::vector<std::string>> commands = {
      {"inspect", "model.pt", "--shape", "1,28,28"},
      {"posterior", recipe, "--out", "out"},
      {"allocate", recipe, "--out", "out"},
      {"run", recipe, "--out", "out"},
      {"verify", recipe, "--out", "out"},
      {"compare", recipe, "--out", "out", "--set", "compare.allocators=[uniform]", "--set", "compare.budgets=[3]"},
      {"train", recipe, "--out", "out"},
      {"bayes", recipe, "--out", "out", "--set", "bayes={epochs: 1, seeds: 1, draws: 2, schemes: [jq], bits: [4]}"},
  };
  const std::set<int> allowed = {0, 64, 65, 66, 75};
  for (const Hostile& hostile : HostileModels()) {
    INFO(hostile.name);
    hostile.make().save((place / "model.pt").string());
    std::filesystem::remove_all(place / "out");
    for (const auto& command : commands) {
      INFO(command[0]);
      const Outcome outcome = place.Bitplan(command);
      INFO(outcome.err);
      CHECK(allowed.contains(outcome.code));
      CHECK_THAT(outcome.err, !ContainsSubstring("Traceback"));
      CHECK_THAT(outcome.err, !ContainsSubstring("internal error"));
      if (outcome.code != 0) CHECK_FALSE(ErrorLine(outcome).empty());
      if (command[0] != "run" && command[0] != "bayes") continue;
      CHECK(outcome.code == hostile.code);
      CHECK_THAT(outcome.err, ContainsSubstring(hostile.says));
    }
  }
}

TEST_CASE("a network of batch statistics runs when the user insists, and no pass of ours moves its running ones") {
  const Workplace place;
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt, answers_may_vary: true}");
  const auto module = TrainingModeBatchNorm();
  module.save((place / "model.pt").string());
  const auto outcome = place.Bitplan({"run", place.recipe(), "--out", "out"});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  CHECK_THAT(outcome.err, ContainsSubstring("depend on the other images of the batch"));
  const auto quantized = torch::jit::load((place / "out/quantized.pt").string());
  for (const auto& buffer : quantized.named_buffers()) {
    INFO(buffer.name);
    CHECK(torch::equal(buffer.value, module.attr(buffer.name).toTensor()));
  }
  CHECK_THAT(bitplan::LoadPlan(place / "out/plan.yaml").model.note,
             ContainsSubstring("depend on the other images of the batch"));
  // The warning is not only for the run that found out.
  const auto verified = place.Bitplan({"verify", place.recipe(), "--out", "out", "--json"});
  CHECK_THAT(verified.err, ContainsSubstring("depend on the other images of the batch"));
  CHECK_THAT(nlohmann::json::parse(verified.out).at("model").at("note").get<std::string>(),
             ContainsSubstring("depend on the other images of the batch"));
}
