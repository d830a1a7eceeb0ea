#include "bitplan/pipeline/diff.h"

#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "io/scratch.h"
#include "support/catch_torch.h"

namespace bitplan::pipeline {
namespace {

Plan PlanWith(const std::vector<std::pair<std::string, int>>& widths, const std::string& model = "one") {
  Plan plan;
  plan.model = {.name = model, .sha256 = std::string(64, model[0] == 'o' ? 'a' : 'b'), .weights = 0};
  plan.allocator = "exact";
  for (const auto& [name, bits] : widths) {
    PlanLayer layer;
    layer.name = name;
    layer.kind = "linear";
    layer.shape = {10, 20};
    layer.bits = bits;
    plan.layers.push_back(layer);
    plan.model.weights += layer.weights();
  }
  return plan;
}

DiffReport DiffOf(const Plan& first, const Plan& second) {
  const Scratch folder;
  WriteFileAtomically(folder / "first.yaml", DumpPlan(first));
  WriteFileAtomically(folder / "second.yaml", DumpPlan(second));
  return DiffPlans(folder / "first.yaml", folder / "second.yaml");
}

}  // namespace

TEST_CASE("diff lists the layers that differ, and counts the bits that moved among layers that both plans round") {
  Plan first = PlanWith({{"a", 3}, {"b", 4}, {"c", 2}, {"d", 32}, {"old", 5}});
  Plan second = PlanWith({{"a", 5}, {"b", 3}, {"c", 2}, {"d", 4}, {"new", 6}});
  const DiffReport report = DiffOf(first, second);
  std::string names;
  for (const LayerDifference& layer : report.layers) {
    names += layer.name + (layer.first ? "" : "+") + (layer.second ? "" : "-") + " ";
  }
  CHECK(names == "a b d old- new+ ");
  CHECK(report.same == 1);
  CHECK(report.bits_given == 2 * 200);
  CHECK(report.bits_taken == 1 * 200);
  REQUIRE(report.notes.size() == 1);
  CHECK_THAT(report.notes[0], ContainsSubstring("neither plan is measured"));
}

TEST_CASE("diff counts another grid as a difference that moves no bits, and a plan against itself as none") {
  const Plan first = PlanWith({{"a", 3}, {"b", 4}});
  Plan second = first;
  second.layers[0].grid = "half";
  const DiffReport report = DiffOf(first, second);
  CHECK(report.layers.size() == 1);
  CHECK(report.bits_given + report.bits_taken == 0);
  CHECK(DiffOf(first, first).layers.empty());
}

TEST_CASE("diff says when the plans are for other weights or were measured on other images") {
  Plan first = PlanWith({{"a", 3}}), second = PlanWith({{"a", 3}}, "two");
  CHECK_THAT(DiffOf(first, second).notes.at(0), ContainsSubstring("other weights"));
  second = first;
  first.verified = second.verified = Verification{};
  first.verified->data = "mnist/test";
  second.verified->data = "mnist/calibration";
  first.verified->samples = second.verified->samples = 100;
  CHECK_THAT(DiffOf(first, second).notes.at(0), ContainsSubstring("mnist/test, mnist/calibration"));
  second.verified->data = "mnist/test";
  CHECK(DiffOf(first, second).notes.empty());
  CHECK_THROWS_WITH(DiffPlans("nowhere.yaml", "nowhere.yaml"), ContainsSubstring("nowhere.yaml"));
}

}  // namespace bitplan::pipeline
