// Curves, and the smallest plan within a drop, in one process.
#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/pipeline/measure_curve.h"
#include "bitplan/pipeline/run.h"
#include "pipeline/shared_network.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::Folder;
using testing::PrepareShared;
using testing::SharedOptions;

std::vector<int> WidthsOf(const Plan& plan) {
  std::vector<int> bits;
  for (const PlanLayer& layer : plan.layers) bits.push_back(layer.bits);
  return bits;
}

TEST_CASE("a curve goes from the narrowest to the widest plan, with uniform beside it and every plan as a file") {
  const Folder folder;
  PrepareShared(folder);
  const auto report = pipeline::MeasureCurve(SharedOptions(folder, {"curve.points=4"}), SilentSink());
  const MeasuredCurve& curve = report.curve;
  REQUIRE(curve.front.size() > 4);
  CHECK(curve.front.front().spent.front() == Approx(1.0));
  CHECK(curve.front.back().spent.front() == Approx(8.0));
  for (std::size_t i = 1; i < curve.front.size(); ++i) {
    CHECK(curve.front[i].spent.front() > curve.front[i - 1].spent.front());
    CHECK(curve.front[i].predicted_rise < curve.front[i - 1].predicted_rise);
  }
  CHECK(report.measured == static_cast<std::int64_t>(curve.plans.size()));
  int uniform = 0;
  for (const CurvePlan& plan : curve.plans) {
    const auto bits = WidthsOf(plan.plan);
    if (plan.uniform) CHECK(std::count(bits.begin(), bits.end(), bits.front()) == std::ssize(bits));
    uniform += plan.uniform ? 1 : 0;
    // The file is the plan, and `verify` measures the same.
    const auto file = folder.path / "out" / plan.file;
    CHECK(WidthsOf(LoadPlan(file)) == bits);
    pipeline::VerifyPlanOptions verify;
    verify.recipe = SharedOptions(folder, {});
    verify.plan = file;
    verify.out_plan = folder.path / "again.yaml";
    const auto again = pipeline::Verify(verify, SilentSink());
    CHECK(again.plan.verified->quantized.nll == plan.plan.verified->quantized.nll);
    // What dominates takes no more and is no worse; what nothing dominates is better than all that is smaller.
    const double accuracy = plan.plan.verified->quantized.accuracy;
    if (plan.dominated_by) {
      const CurvePlan& other = curve.plans[*plan.dominated_by];
      CHECK(other.spent.front() <= plan.spent.front());
      CHECK(other.plan.verified->quantized.accuracy >= accuracy);
    } else {
      for (const CurvePlan& other : curve.plans) {
        if (other.spent.front() < plan.spent.front()) CHECK(other.plan.verified->quantized.accuracy < accuracy);
      }
    }
  }
  CHECK(uniform >= 1);
  // A second one measures nothing, also with more points than before only the new ones.
  CHECK(pipeline::MeasureCurve(SharedOptions(folder, {"curve.points=4"}), SilentSink()).measured == 0);
  const auto more =
      pipeline::MeasureCurve(SharedOptions(folder, {"curve.points=7", "curve.uniform=false"}), SilentSink());
  CHECK(more.measured < static_cast<std::int64_t>(more.curve.plans.size()));
  for (const CurvePlan& plan : more.curve.plans) CHECK(!plan.uniform);
}

TEST_CASE("a curve of pairs goes along bit operations, within the recipe's other limits") {
  const Folder folder;
  PrepareShared(folder);
  const std::string several = "allocate.activation_bits=[2, 4, 8]";
  const auto report = pipeline::MeasureCurve(
      SharedOptions(folder, {several, "allocate.budget={bops: 1000000, average_bits: 5.0}", "curve.points=3"}),
      SilentSink());
  const MeasuredCurve& curve = report.curve;
  CHECK(std::string(curve.resources.front()->name) == "bops");
  bool narrow = false, wide = false;
  for (const FrontPlan& plan : curve.front) {
    CHECK(plan.activation_bits[1] == plan.activation_bits[2]);  // they read one tensor
    const auto average = std::find_if(curve.resources.begin(), curve.resources.end(),
                                      [](const Resource* one) { return one == &AverageBits(); });
    CHECK(plan.spent[static_cast<std::size_t>(average - curve.resources.begin())] <= 5.0 + 1e-9);
    narrow = narrow || plan.activation_bits[0] == 2;
    wide = wide || plan.activation_bits[0] == 8;
    CHECK(plan.yaml == DumpPlan(ParsePlan(plan.yaml, "plan.yaml")));
  }
  CHECK((narrow && wide));
  for (const CurvePlan& plan : curve.plans) CHECK(plan.plan.verified);
}

TEST_CASE("the smallest plan within a drop keeps it on images without a part in any choice, and a run repeats it") {
  const Folder folder;
  PrepareShared(folder, 2000);
  const std::vector<std::string> asked = {"allocate.budget.drop=5", "data.calibration=1000"};
  const auto report = pipeline::Run(SharedOptions(folder, asked), SilentSink());
  REQUIRE(report.plan.drop);
  const PlanDrop& drop = *report.plan.drop;
  CHECK(drop.at_most == 0.05);
  CHECK(drop.smallest == "average_bits");
  CHECK(drop.images == 667);
  CHECK((drop.value <= drop.upper95 && drop.upper95 <= drop.at_most));
  CHECK((drop.plans >= 2 && drop.plans <= 5));
  CHECK(report.plan.achieved.average_bits < 8.0);
  CHECK(DumpPlan(ParsePlan(ReadFile(folder.path / "out/plan.yaml", "plan"), "plan.yaml")) == DumpPlan(report.plan));
  for (const auto& stage : pipeline::Run(SharedOptions(folder, asked), SilentSink()).stages) CHECK(stage.reused);
  // Verified again it still claims that; rounded otherwise, it does not.
  pipeline::VerifyPlanOptions again;
  again.recipe = SharedOptions(folder, asked);
  CHECK(pipeline::Verify(again, SilentSink()).plan.drop);
  std::string other = ReadFile(folder.path / "out/plan.yaml", "plan");
  other.replace(other.find("rounding: compensated"), 21, "rounding: nearest");
  WriteFileAtomically(folder.path / "nearest.yaml", other);
  again.plan = folder.path / "nearest.yaml";
  CHECK(!pipeline::Verify(again, SilentSink()).plan.drop);
  // More may be lost: fewer bits, or as many.
  const auto careless =
      pipeline::Run(SharedOptions(folder, {"allocate.budget.drop=25", "data.calibration=1000"}), SilentSink());
  CHECK(careless.plan.achieved.average_bits < report.plan.achieved.average_bits);
  // Another resource.
  const auto bytes = pipeline::Run(
      SharedOptions(folder, {"allocate.budget.drop=5", "allocate.budget.smallest=bytes", "data.calibration=1000"}),
      SilentSink());
  CHECK(bytes.plan.drop->smallest == "bytes");
  CHECK(bytes.plan.budget.Find(StoredBytes()) != nullptr);
  // An edited plan no longer claims it.
  std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
  const auto at = text.find("bits: ", text.find("layers:"));
  text.replace(at, 7, "bits: 8");
  WriteFileAtomically(folder.path / "edited.yaml", text);
  pipeline::VerifyPlanOptions verify;
  verify.recipe = SharedOptions(folder, asked);
  verify.plan = folder.path / "edited.yaml";
  CHECK(!pipeline::Verify(verify, SilentSink()).plan.drop);
}

TEST_CASE("pairs within a drop: what was predicted for both stays when the plan is verified, also beside exclusions") {
  const Folder folder;
  PrepareShared(folder, 2000);
  const std::vector<std::string> asked = {"allocate.budget={drop: 20, smallest: activation_bytes}",
                                          "allocate.activation_bits=[2, 4, 8]", "allocate.exclude=[a]",
                                          "data.calibration=1000"};
  const auto made = pipeline::Run(SharedOptions(folder, asked), SilentSink());
  REQUIRE(made.plan.drop);
  CHECK(made.plan.drop->smallest == "activation_bytes");
  CHECK(made.plan.drop->upper95 <= 0.2);
  pipeline::VerifyPlanOptions verify;
  verify.recipe = SharedOptions(folder, asked);
  const auto again = pipeline::Verify(verify, SilentSink());
  CHECK(again.plan.drop);
  CHECK(again.plan.achieved.predicted_loss_rise == made.plan.achieved.predicted_loss_rise);
  // Fewer bits for what one tensor holds: predicted to cost more, and the drop is no longer claimed.
  std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
  const auto fc = text.find("name: fc,");
  const auto at = text.find("activation_bits: ", fc) + std::string("activation_bits: ").size();
  const bool wide = text[at] != '2';
  text[at] = wide ? '2' : '8';
  WriteFileAtomically(folder.path / "edited.yaml", text);
  verify.plan = folder.path / "edited.yaml";
  const auto edited = pipeline::Verify(verify, SilentSink());
  CHECK(!edited.plan.drop);
  CHECK((edited.plan.achieved.predicted_loss_rise > made.plan.achieved.predicted_loss_rise) == wide);
  const auto curve =
      pipeline::MeasureCurve(SharedOptions(folder, {"allocate.budget={smallest: activation_bytes}",
                                                    "allocate.activation_bits=[2, 4, 8]", "curve.points=3"}),
                             SilentSink());
  CHECK(curve.curve.plans.size() >= 2);
}

TEST_CASE("a table that does not count nats is not added to what activations cost") {
  const Folder folder;
  PrepareShared(folder);
  for (const char* other : {"sensitivity.metric=gradient", "allocate.allocator=hawq"}) {
    try {
      (void)pipeline::Allocate(SharedOptions(folder, {"allocate.activation_bits=[4, 8]", other}), SilentSink());
      FAIL(other);
    } catch (const Error& error) {
      CHECK_THAT(error.what(), ContainsSubstring("does not count nats"));
    }
  }
}

TEST_CASE("a drop that no plan surely keeps, and one without images to judge by, are one line each") {
  const Folder folder;
  PrepareShared(folder, 2000);
  const auto failure = [&](const std::vector<std::string>& overrides) -> std::string {
    try {
      (void)pipeline::Allocate(SharedOptions(folder, overrides), SilentSink());
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK_THAT(failure({"allocate.budget.drop=0.01", "data.calibration=400", "allocate.bits=[1, 2]"}),
             ContainsSubstring("no plan surely loses at most 0.01 points") && ContainsSubstring("400 images"));
  CHECK_THAT(failure({"allocate.budget.drop=1", "data.calibration=100"}),
             ContainsSubstring("at least 200 calibration images, and there are 100"));
  CHECK_THAT(failure({"allocate.budget.drop=1", "data.calibration=400", "allocate.allocator=random-bits"}),
             ContainsSubstring("learns from the network anew for every budget"));
}

}  // namespace
}  // namespace bitplan
