#include "pipeline/oddities.h"

#include "support/catch.h"

namespace bitplan::pipeline {
namespace {

Plan Measured(double float_accuracy, double quantized_accuracy, std::int64_t samples = 10000) {
  Plan plan;
  Verification verified;
  verified.data = "cifar10/test";
  verified.samples = samples;
  verified.float_model.accuracy = float_accuracy;
  verified.quantized.accuracy = quantized_accuracy;
  const double drop = float_accuracy - quantized_accuracy;
  verified.accuracy_drop = {drop, drop - 0.005, drop + 0.005, 0.01};
  plan.verified = verified;
  return plan;
}

AllocationProblem TableOf(std::vector<std::vector<double>> rises) {
  AllocationProblem table;
  table.widths = {1, 8};
  table.loss_rise = std::move(rises);
  return table;
}

std::string Only(const std::vector<std::string>& notes) {
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find('\n') == std::string::npos);
  return notes[0];
}

}  // namespace

TEST_CASE("sound runs get no note, not at one bit and not where the model knows its calibration images") {
  const AllocationProblem table = TableOf({{0.4, 1e-5}, {0.01, 1e-7}});
  // LeNet; ResNet-20 at 4, 2 and 1.25 bits; VGG-16; a good network of a thousand classes; a repaired half point.
  const double accuracies[][2] = {{0.9947, 0.9945}, {0.9173, 0.9175}, {0.9173, 0.8988}, {0.9173, 0.8411},
                                  {0.9234, 0.9208}, {0.70, 0.695},    {0.9173, 0.9223}};
  for (const auto& [before, after] : accuracies) {
    Plan plan = Measured(before, after);
    plan.achieved.predicted_loss_rise = 0.02;
    plan.verified->quantized.nll = plan.verified->float_model.nll + 0.4;
    CHECK(Oddities(plan, {.classes = 10, .table = &table, .calibration_accuracy = before + 0.08}).empty());
  }
  CHECK(Oddities({}, {}).empty());
}

TEST_CASE("a float network that guesses is said to") {
  CHECK_THAT(Only(Oddities(Measured(0.105, 0.10), {.classes = 10})), ContainsSubstring("guessing one of 10 classes"));
  CHECK_THAT(Only(Oddities(Measured(0.31, 0.30, 100), {.classes = 4})), ContainsSubstring("data.normalize"));
  CHECK(Oddities(Measured(0.31, 0.30, 10000), {.classes = 4}).empty());
  CHECK(Oddities(Measured(0.105, 0.10), {.classes = 0}).empty());
  CHECK(Oddities(Measured(1.0, 1.0, 1), {.classes = 5}).empty());  // one image tells nothing
}

TEST_CASE("a quantized network far better than the float one is no success") {
  CHECK_THAT(Only(Oddities(Measured(0.563, 0.881), {.classes = 10})),
             ContainsSubstring("31.8 points better") && ContainsSubstring("data.normalize"));
  Plan explained = Measured(0.563, 0.881), puzzling = explained;
  explained.verified->float_corrected = FloatCorrected{{.accuracy = 0.886}, {0.005, 0.001, 0.009, 0.02}};
  CHECK_THAT(Only(Oddities(explained, {.classes = 10})),
             ContainsSubstring("The float network with the same correction has 88.6 %: judge the plan by the drop"));
  puzzling.verified->float_corrected = FloatCorrected{{.accuracy = 0.6}, {-0.281, -0.29, -0.27, 1e-9}};
  CHECK_THAT(Only(Oddities(puzzling, {.classes = 10})), ContainsSubstring("has 60.0 %, so that is not all"));
  Plan unsure = Measured(0.80, 0.83, 100);
  unsure.verified->accuracy_drop.ci_high = 0.01;
  CHECK(Oddities(unsure, {.classes = 10}).empty());
}

TEST_CASE("a table of zeros says nothing, and so does one that promised no loss where much is lost") {
  const AllocationProblem zeros = TableOf({{0.0, 0.0}, {1e-12, 0.0}}), table = TableOf({{1e-4, 1e-9}});
  CHECK_THAT(Only(Oddities({}, {.table = &zeros})), ContainsSubstring("no width of any layer costs anything"));
  CHECK_THAT(Only(Oddities(Measured(0.95, 0.85), {.classes = 10, .table = &zeros})), ContainsSubstring("saturated"));
  Plan lost = Measured(0.95, 0.85);
  lost.achieved.predicted_loss_rise = 1e-4;
  lost.verified->quantized.nll = 0.5;
  CHECK_THAT(Only(Oddities(lost, {.classes = 10, .table = &table})), ContainsSubstring("10.0 points are lost"));
}

TEST_CASE("a layer of which the table says nothing is named, unless the plan leaves it in float") {
  AllocationProblem table = TableOf({{0.4, 1e-5}, {0.0, 0.0}, {0.01, 0.0}});
  for (const char* name : {"fc1", "rare", "fc2"}) {
    Unit unit;
    unit.name = name;
    table.units.push_back(unit);
  }
  CHECK_THAT(Only(Oddities(Plan{}, {.table = &table})),
             ContainsSubstring("no width of rare costs anything") && ContainsSubstring("sensitivity.samples"));
  Plan plan;
  plan.layers = {{.bits = 4}, {.bits = 32}, {.bits = 4}};
  CHECK(Oddities(plan, {.table = &table}).empty());
}

TEST_CASE("what is odd about many plans is said once, about the network or with the name of the first plan") {
  const AllocationProblem table = TableOf({{1e-4, 1e-9}});
  Plan lost = Measured(0.95, 0.85);
  lost.achieved.predicted_loss_rise = 1e-4;
  lost.verified->quantized.nll = 0.5;
  const std::vector<NamedPlan> plans = {{"exact at 4 bits", Measured(0.95, 0.95)},
                                        {"exact at 2 bits", lost},
                                        {"greedy at 2 bits", lost},
                                        {"uniform at 2 bits", lost}};
  CHECK_THAT(
      Only(OdditiesOfMany(plans, {.classes = 10, .table = &table})),
      Catch::Matchers::StartsWith("exact at 2 bits: 10.0 points are lost") && ContainsSubstring("(and 2 more plans)"));
  const std::vector<NamedPlan> blind = {{"a", Measured(0.1, 0.1)}, {"b", Measured(0.1, 0.099)}};
  CHECK_THAT(Only(OdditiesOfMany(blind, {.classes = 10})),
             Catch::Matchers::StartsWith("float accuracy 10.0 % is that of guessing"));
}

TEST_CASE("calibration images that the network knows by heart are said to be") {
  CHECK_THAT(
      Only(Oddities(Measured(0.8493, 0.84), {.classes = 10, .calibration_accuracy = 0.98})),
      ContainsSubstring("98.0 %") && ContainsSubstring("84.9 %") && ContainsSubstring("data.calibration_images"));
}

TEST_CASE("files that are measured on and trained on are told, and how many") {
  CHECK(Oddities({}, {.test_files = 2}).empty());
  CHECK_THAT(Only(Oddities({}, {.test_files = 2, .shared_files = 2})),
             ContainsSubstring("the test files are training files too"));
  CHECK_THAT(Only(Oddities({}, {.test_files = 2000, .shared_files = 1})),
             ContainsSubstring("test files that are training files too: 1 of 2,000;"));
}

TEST_CASE("data of one class, or of fewer than the network tells apart, are told") {
  CHECK(Oddities({}, {.classes = 10, .outputs = 10, .present = 9}).empty());
  CHECK(Oddities({}, {.classes = 3, .present = 3}).empty());  // trained here: its outputs are what they are
  CHECK_THAT(Only(Oddities({}, {.classes = 10, .outputs = 10, .present = 1, .sample = "row"})),
             ContainsSubstring("all training rows are of one class"));
  CHECK_THAT(Only(Oddities({}, {.classes = 3, .outputs = 10, .present = 3})),
             ContainsSubstring("the data have 3 classes, the network 10 outputs"));
}

}  // namespace bitplan::pipeline
