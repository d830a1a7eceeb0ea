// Widths of activations from recipe to plan, in one process.
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/pipeline/curve.h"
#include "bitplan/pipeline/run.h"
#include "pipeline/shared_network.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

using testing::Folder;
using testing::PrepareShared;
using testing::SharedOptions;

std::int64_t BitOperationsOf(const Plan& plan) {
  std::int64_t sum = 0;
  for (const PlanLayer& layer : plan.layers) sum += layer.macs * layer.bits * layer.activation_bits;
  return sum;
}

TEST_CASE("one width of activations is in the plan, in its network and in its bit operations") {
  const Folder folder;
  PrepareShared(folder);
  const auto in_float = pipeline::Run(SharedOptions(folder, {"allocate.budget.average_bits=4"}), SilentSink());
  const std::string before = ReadFile(folder.path / "out/plan.yaml", "plan");
  CHECK(before.find("activation") == std::string::npos);
  CHECK(pipeline::Run(SharedOptions(folder, {"allocate.budget.average_bits=4", "allocate.activation_bits=[]"}),
                      SilentSink())
            .plan.layers[0]
            .activation_bits == 32);
  double last = in_float.plan.verified->quantized.nll - 0.02;
  for (const int width : {8, 2}) {
    const std::string bits = "allocate.activation_bits=[" + std::to_string(width) + "]";
    const auto report = pipeline::Run(SharedOptions(folder, {"allocate.budget.average_bits=4", bits}), SilentSink());
    INFO(width);
    for (const PlanLayer& layer : report.plan.layers) CHECK(layer.activation_bits == width);
    const std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
    CHECK_THAT(text, ContainsSubstring("activation_bits: " + std::to_string(width)) &&
                         ContainsSubstring("activation_range: mse"));
    CHECK(DumpPlan(ParsePlan(text, "plan.yaml")) == text);
    CHECK(report.plan.verified->quantized.nll > last);
    last = report.plan.verified->quantized.nll;
    // Weights of four bits, and as many operations as the budget allows.
    std::int64_t macs = 0;
    for (const PlanLayer& layer : report.plan.layers) macs += layer.macs;
    const std::string budget = "allocate.budget.bops=" + std::to_string(4 * width * macs);
    const auto limited = pipeline::Run(SharedOptions(folder, {budget, bits}), SilentSink());
    CHECK(BitOperationsOf(limited.plan) <= 4 * width * macs);
    CHECK(BitOperationsOf(limited.plan) > 3 * width * macs);
  }
}

TEST_CASE("widths of weights and activations are chosen together within the budget, and better than one for all") {
  const Folder folder;
  PrepareShared(folder);
  const auto macs_of = [&] {
    const auto plan = pipeline::Allocate(SharedOptions(folder, {"allocate.budget.average_bits=4"}), SilentSink()).plan;
    std::int64_t macs = 0;
    for (const PlanLayer& layer : plan.layers) macs += layer.macs;
    return macs;
  };
  const std::int64_t limit = 16 * macs_of();
  const std::string budget = "allocate.budget.bops=" + std::to_string(limit);
  const auto chosen =
      pipeline::Run(SharedOptions(folder, {budget, "allocate.activation_bits=[2, 3, 4, 6, 8]"}), SilentSink());
  CHECK(BitOperationsOf(chosen.plan) <= limit);
  CHECK(BitOperationsOf(chosen.plan) > 0.9 * static_cast<double>(limit));
  CHECK(chosen.plan.layers[1].activation_bits == chosen.plan.layers[2].activation_bits);  // they read one tensor
  CHECK(chosen.plan.achieved.optimality_gap == 0.0);
  const auto uniform = pipeline::Run(
      SharedOptions(folder, {budget, "allocate.activation_bits=[2, 3, 4, 6, 8]", "allocate.allocator=uniform"}),
      SilentSink());
  CHECK(BitOperationsOf(uniform.plan) <= limit);
  CHECK(chosen.plan.achieved.predicted_loss_rise < uniform.plan.achieved.predicted_loss_rise);
  CHECK(chosen.plan.verified->quantized.nll < uniform.plan.verified->quantized.nll);
  // A second run finds all of it; a pin and an exclusion hold.
  for (const auto& stage :
       pipeline::Run(SharedOptions(folder, {budget, "allocate.activation_bits=[2, 3, 4, 6, 8]"}), SilentSink())
           .stages) {
    CHECK(stage.reused);
  }
  const auto pinned = pipeline::Run(SharedOptions(folder, {budget, "allocate.activation_bits=[4, 8]",
                                                           "allocate.pins={c: 7}", "allocate.exclude=[a]"}),
                                    SilentSink());
  CHECK(pinned.plan.layers[2].bits == 7);
  CHECK(pinned.plan.layers[0].bits > 8);
  CHECK(pinned.plan.layers[0].activation_bits == 32);
}

TEST_CASE("what cannot choose pairs says so in one line") {
  const Folder folder;
  PrepareShared(folder);
  const auto refusal = [&](std::vector<std::string> overrides) {
    try {
      (void)pipeline::Allocate(SharedOptions(folder, std::move(overrides)), SilentSink());
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kUsage);
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return std::string(error.what());
    }
    return std::string("nothing was refused");
  };
  const std::string several = "allocate.activation_bits=[4, 8]";
  CHECK_THAT(refusal({several, "allocate.allocator=quantile-inform"}), ContainsSubstring("quantile-inform"));
  CHECK_THAT(refusal({several, "allocate.groups=[[b, c]]"}), ContainsSubstring("allocate.groups"));
  try {
    (void)pipeline::SolveCurve(SharedOptions(folder, {several}), 3, SilentSink());
    FAIL("a curve of pairs was drawn");
  } catch (const Error& error) {
    CHECK_THAT(error.what(), ContainsSubstring("a curve needs one of them"));
  }
  CHECK_THAT(refusal({"allocate.activation_bits=[9]"}), ContainsSubstring("must be in 2..8, or 16"));
}

}  // namespace
}  // namespace bitplan
