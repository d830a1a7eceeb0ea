// Linear layers that read one tensor share a width, unless the recipe says otherwise.
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "cli/report.h"
#include "support/catch_torch.h"
#include "support/networks.h"

using namespace bitplan::test;

namespace {

// Attention over the 28 rows of a picture. Queries and keys are fine as they are; the values are large, so that alone
// they would get more bits.
torch::jit::Module Attention() {
  torch::manual_seed(3);
  torch::jit::Module module("Net");
  for (const char* name : {"q", "k", "v"}) {
    bitplan::testing::AddLayer(module, name, torch::randn({16, 28}) * (name[0] == 'v' ? 0.6 : 0.02));
  }
  bitplan::testing::AddLayer(module, "head", torch::randn({4, 16}));
  module.define(R"(
def forward(self, x):
    x = x.squeeze(1)
    q = torch.linear(x, self.q.weight)
    k = torch.linear(x, self.k.weight)
    h = torch.matmul(torch.softmax(torch.matmul(q, k.transpose(1, 2)), 2), torch.linear(x, self.v.weight))
    return torch.linear(h.mean(1), self.head.weight)
)");
  return module;
}

}  // namespace

TEST_CASE("linear layers that read one tensor share a width, unless the recipe decides about them") {
  const Workplace place;
  Attention().save((place / "model.pt").string());
  place.EditRecipe("{architecture: lenet-300-100}", "{file: model.pt}");
  const auto allocated = [&](const std::vector<std::string>& settings) {
    std::vector<std::string> words = {"allocate",
                                      place.recipe(),
                                      "--out",
                                      "out",
                                      "--json",
                                      "--set",
                                      "allocate.draws=0",
                                      "--set",
                                      "allocate.allocator=exact"};
    words.insert(words.end(), settings.begin(), settings.end());
    return ReportOf(place, std::move(words));
  };
  const auto bits = [](const nlohmann::json& report) {
    std::vector<int> widths;
    for (const auto& layer : report.at("layers")) widths.push_back(layer.at("bits"));
    return widths;
  };
  const auto said = [](const nlohmann::json& report) { return report.at("notes").dump(); };

  const auto together = allocated({});
  const auto shared = bits(together);
  REQUIRE(shared.size() == 4);
  CHECK((shared[0] == shared[1] && shared[1] == shared[2]));
  CHECK_THAT(said(together), ContainsSubstring("q, k, v read one tensor and share a width"));

  const auto apart = allocated({"allocate.groups=[[q], [k], [v]]"});
  const auto free = bits(apart);
  CHECK(free[2] > free[0]);
  CHECK_THAT(said(apart), !ContainsSubstring("share a width"));
  CHECK(apart.at("achieved").at("predicted_loss_rise") <= together.at("achieved").at("predicted_loss_rise"));

  // A layer of two branches reads two tensors, so nothing ties the layers that read only one of them to it.
  torch::jit::Module branches("Net");
  for (const char* name : {"shared", "one", "other"}) {
    bitplan::testing::AddLayer(branches, name, torch::randn({8, 28}) * (name[0] == 'o' ? 0.5 : 0.02));
  }
  branches.register_parameter("head", torch::randn({4, 8}), false);
  branches.define(R"(
def forward(self, x):
    x = x.squeeze(1)
    a, b = x[:, :14].mean(1), x[:, 14:].amax(1)
    h = torch.linear(a, self.shared.weight) + torch.linear(b, self.shared.weight)
    return torch.linear(torch.relu(h + torch.linear(a, self.one.weight) + torch.linear(b, self.other.weight)), self.head)
)");
  branches.save((place / "branches.pt").string());
  CHECK_THAT(said(allocated({"model.file=branches.pt"})), !ContainsSubstring("share a width"));

  const auto pinned = bits(allocated({"allocate.pins={v: 5}"}));
  CHECK((pinned[0] == pinned[1] && pinned[2] == 5));
  const auto excluded = bits(allocated({"allocate.exclude=[q]"}));
  CHECK((excluded[0] == 32 && excluded[1] == excluded[2]));
}
