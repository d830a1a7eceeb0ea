// Widths of activations from recipe to plan, in one process.
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/pipeline/curve.h"
#include "bitplan/pipeline/run.h"
#include "pipeline/shared_network.h"
#include "pipeline/stage_chain.h"
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
    const std::string range = "quantizer.activation_range=mse";
    const auto report =
        pipeline::Run(SharedOptions(folder, {"allocate.budget.average_bits=4", bits, range}), SilentSink());
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
    CHECK(limited.plan.quantizer.activation_range == "output");  // the default
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

TEST_CASE("several widths of activations are priced by the metric's own table where it counts nats") {
  const Folder folder;
  PrepareShared(folder);
  const std::string several = "allocate.activation_bits=[2, 4, 8]";
  const auto table = [&](const std::string& metric) {
    pipeline::StageChain chain(SharedOptions(folder, {several, "sensitivity.metric=" + metric}), SilentSink());
    return chain.ActivationTable();
  };
  const auto sketched = table("posterior"), measured = table("predictive");
  CHECK(measured.widths == sketched.widths);
  CHECK(measured.tensors == sketched.tensors);
  CHECK(measured.loss_rise != sketched.loss_rise);
  CHECK(measured.together.empty());
  for (std::size_t l = 0; l < measured.tensors.size(); ++l) {
    if (measured.tensors[l] != l) continue;
    INFO(l);  // rounding to two bits costs more than to eight, and the one about what the other says
    CHECK(measured.loss_rise[l][0] > measured.loss_rise[l][2]);
    CHECK(measured.loss_rise[l][1] < 20.0 * sketched.loss_rise[l][1]);
    CHECK(measured.loss_rise[l][1] > 0.05 * sketched.loss_rise[l][1]);
  }
  CHECK(table("predictive").loss_rise == measured.loss_rise);  // kept
}

TEST_CASE("an evened-out network is a network of its own, that answers as the model does") {
  const Folder folder;
  PrepareShared(folder);
  const std::vector<std::string> plain = {"allocate.budget.average_bits=4", "allocate.activation_bits=[4]"};
  auto evened = plain;
  evened.emplace_back("model.equalize=0.5");
  const auto before = pipeline::Run(SharedOptions(folder, plain), SilentSink());
  const std::string plan_before = ReadFile(folder.path / "out/plan.yaml", "plan");
  const auto after = pipeline::Run(SharedOptions(folder, evened), SilentSink());
  CHECK(after.plan.model.sha256 != before.plan.model.sha256);
  CHECK(after.plan.verified->float_model.accuracy == before.plan.verified->float_model.accuracy);
  CHECK(after.plan.verified->float_model.nll == Approx(before.plan.verified->float_model.nll).epsilon(1e-4));
  CHECK(after.plan.verified->quantized.nll != before.plan.verified->quantized.nll);
  for (const auto& stage : pipeline::Run(SharedOptions(folder, evened), SilentSink()).stages) CHECK(stage.reused);
  // A plan for the one is none for the other.
  WriteFileAtomically(folder.path / "plain.yaml", plan_before);
  pipeline::VerifyPlanOptions verify;
  verify.recipe = SharedOptions(folder, evened);
  verify.plan = folder.path / "plain.yaml";
  try {
    (void)pipeline::Verify(verify, SilentSink());
    FAIL("a plan for another network was taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kData);
    CHECK_THAT(error.what(), ContainsSubstring("other weights"));
  }
}

TEST_CASE("refined ranges are in the plan, and the plan gives them again") {
  const Folder folder;
  PrepareShared(folder, 900);
  const std::vector<std::string> plain = {"allocate.budget.average_bits=4", "allocate.activation_bits=[2]",
                                          "quantizer.activation_range=max"};
  auto refined = plain;
  refined.emplace_back("quantizer.range_sweeps=2");
  const auto before = pipeline::Run(SharedOptions(folder, plain), SilentSink());
  const std::string without = ReadFile(folder.path / "out/plan.yaml", "plan");
  CHECK(without.find("range_sweeps") == std::string::npos);
  const auto after = pipeline::Run(SharedOptions(folder, refined), SilentSink());
  const std::string text = ReadFile(folder.path / "out/plan.yaml", "plan");
  CHECK_THAT(text, ContainsSubstring("activation_range: max, range_sweeps: 2"));
  CHECK(DumpPlan(ParsePlan(text, "plan.yaml")) == text);
  CHECK(after.plan.verified->quantized.nll != before.plan.verified->quantized.nll);
  // By the recipe without it: what the plan says counts.
  pipeline::VerifyPlanOptions verify;
  verify.recipe = SharedOptions(folder, plain);
  verify.plan = folder.path / "refined.yaml";
  WriteFileAtomically(folder.path / "refined.yaml", text);
  const auto again = pipeline::Verify(verify, SilentSink());
  CHECK(again.plan.verified->quantized.nll == after.plan.verified->quantized.nll);
  try {
    auto both = refined;
    both.emplace_back("quantizer.activation_sums=rounded");
    (void)pipeline::Run(SharedOptions(folder, both), SilentSink());
    FAIL("both were taken");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::kUsage);
    CHECK_THAT(error.what(), ContainsSubstring("range_sweeps") && ContainsSubstring("activation_sums"));
  }
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
  CHECK_THAT(refusal({several, "allocate.groups=[[b, c], [c, fc]]"}), ContainsSubstring("in two groups"));
  try {
    (void)pipeline::SolveCurve(SharedOptions(folder, {several}), 3, SilentSink());
    FAIL("a curve of pairs was drawn");
  } catch (const Error& error) {
    CHECK_THAT(error.what(), ContainsSubstring("a curve needs one of them"));
  }
  CHECK_THAT(refusal({"allocate.activation_bits=[9]"}), ContainsSubstring("must be in 2..8, or 16"));
}

// A residual connection around two convolutions, the tensor between them four times as large: at its step h of 512
// values and y of 2,048 are live beside y in float.
void PrepareResidual(const Folder& folder) {
  PrepareShared(folder);
  torch::manual_seed(5);
  torch::jit::Module module("Net");
  module.register_parameter("a", torch::randn({8, 1, 3, 3}) * 0.4, false);
  module.register_parameter("b", torch::randn({32, 8, 3, 3}) * 0.2, false);
  module.register_parameter("c", torch::randn({8, 32, 3, 3}) * 0.1, false);
  module.register_parameter("fc", torch::randn({5, 8}), false);
  module.define(R"(
def forward(self, x):
  h = torch.relu(torch.conv2d(x, self.a, None, 1, 1))
  y = torch.relu(torch.conv2d(h, self.b, None, 1, 1))
  z = torch.relu(torch.conv2d(y, self.c, None, 1, 1) + h)
  return torch.linear(torch.amax(z, [2, 3]), self.fc)
)");
  module.eval();
  module.save((folder.path / "model.pt").string());
}

std::int64_t PeakWith(int h, int y) { return 4 * 2048 + 512 * h / 8 + 2048 * y / 8; }

const std::vector<std::string> kThreeWidths = {"allocate.budget={average_bits: 5.0, activation_bytes: 9400}",
                                               "allocate.activation_bits=[2, 4, 8]", "allocate.bits=[2, 4, 8]"};

TEST_CASE("an exact plan within a peak of activations is the best of all plans that keep it") {
  const Folder folder;
  PrepareResidual(folder);
  const Plan plan = pipeline::Allocate(SharedOptions(folder, kThreeWidths), SilentSink()).plan;
  CHECK(plan.achieved.activation_bytes == PeakWith(plan.layers[1].activation_bits, plan.layers[2].activation_bits));
  CHECK(*plan.achieved.activation_bytes <= 9400);
  CHECK_THAT(ReadFile(folder.path / "out/plan.yaml", "plan"),
             ContainsSubstring("activation_bytes: " + std::to_string(*plan.achieved.activation_bytes)));
  pipeline::StageChain chain(SharedOptions(folder, kThreeWidths), SilentSink());
  const AllocationProblem& table = chain.Table();
  const ActivationRises rises = chain.ActivationTable();
  const double most_bits = 5.0 * static_cast<double>(table.total_weights());
  double best = 1e9, without = 1e9;
  for (int code = 0; code < 81 * 81; ++code) {  // a width of weights and of activations for each of four layers
    double rise = 0.0;
    std::int64_t bits = 0;
    std::vector<int> activations;
    for (int l = 0, rest = code; l < 4; ++l, rest /= 9) {
      const auto layer = static_cast<std::size_t>(l), w = static_cast<std::size_t>(rest % 3),
                 a = static_cast<std::size_t>(rest / 3 % 3);
      bits += table.units[layer].weights * table.widths[w];
      rise += table.loss_rise[layer][w] + rises.loss_rise[layer][a];
      activations.push_back(rises.widths[a]);
    }
    if (static_cast<double>(bits) > most_bits) continue;
    without = std::min(without, rise);
    if (PeakWith(activations[1], activations[2]) <= 9400) best = std::min(best, rise);
  }
  CHECK(plan.achieved.predicted_loss_rise == Approx(best).epsilon(1e-5));
  CHECK(best > without);
}

TEST_CASE("a peak of activations that no widths keep is one line with the step and its layers") {
  const Folder folder;
  PrepareResidual(folder);
  const auto refusal = [&](std::vector<std::string> overrides) {
    try {
      (void)pipeline::Allocate(SharedOptions(folder, std::move(overrides)), SilentSink());
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::kInfeasible);
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return std::string(error.what());
    }
    return std::string("nothing was refused");
  };
  const std::string two = std::to_string(PeakWith(2, 2));
  CHECK_THAT(
      refusal({"allocate.budget={average_bits: 4.0, activation_bytes: 8000}", kThreeWidths[1]}),
      ContainsSubstring("activation_bytes 8000 cannot be met: 8,832 bytes are live while aten::relu after b runs") &&
          ContainsSubstring("what b, c read at 2 bits") && ContainsSubstring("to " + two));
  // One width, and none: the peak follows from the network.
  CHECK_THAT(refusal({"allocate.budget={average_bits: 4.0, activation_bytes: 10751}", "allocate.activation_bits=[8]"}),
             ContainsSubstring("to " + std::to_string(PeakWith(8, 8))));
  CHECK_THAT(refusal({"allocate.budget={average_bits: 4.0, activation_bytes: 10000}"}),
             ContainsSubstring("round activations with allocate.activation_bits"));
}

TEST_CASE("with one width of activations, or none, the peak is stated and kept when a plan is verified") {
  const Folder folder;
  PrepareResidual(folder);
  const std::string budget = "allocate.budget={average_bits: 4.0, activation_bytes: 20000}";
  const auto in_float = pipeline::Run(SharedOptions(folder, {budget}), SilentSink());
  CHECK(in_float.plan.achieved.activation_bytes == 2 * 4 * 2048 + 4 * 512);
  CHECK_FALSE(pipeline::Allocate(SharedOptions(folder, {"allocate.budget.average_bits=4"}), SilentSink())
                  .plan.achieved.activation_bytes);
  const std::string eight = "allocate.activation_bits=[8]";
  const auto rounded = pipeline::Run(SharedOptions(folder, {"allocate.budget.average_bits=4", eight}), SilentSink());
  CHECK(rounded.plan.achieved.activation_bytes == PeakWith(8, 8));
  // A layer in float reads what it reads in float, unless another one rounds it.
  const auto excluded = pipeline::Allocate(
      SharedOptions(folder, {"allocate.budget.average_bits=4", eight, "allocate.exclude=[c]"}), SilentSink());
  CHECK(excluded.plan.achieved.activation_bytes == 2 * 4 * 2048 + 512);
  pipeline::VerifyPlanOptions verify;
  verify.recipe = SharedOptions(folder, {"allocate.budget.average_bits=4", eight});
  verify.recipe.out = folder.path / "again";
  verify.plan = folder.path / "edited.yaml";
  std::string text = DumpPlan(rounded.plan);
  const std::string y = "name: c, kind: conv2d, shape: [8, 32, 3, 3]";
  const auto place = text.find("activation_bits: 8", text.find(y));
  REQUIRE(text.find(y) != std::string::npos);
  std::ofstream(verify.plan) << text.replace(place, 18, "activation_bits: 4");
  CHECK(pipeline::Verify(verify, SilentSink()).plan.achieved.activation_bytes == PeakWith(8, 4));
}

TEST_CASE("a plan keeps a latency by a table, states it, and depends on the table") {
  const Folder folder;
  PrepareResidual(folder);
  const auto write = [&](int eight_bits) {
    std::ofstream(folder.path / "times.csv") << "layer,kind,weight_bits,activation_bits,microseconds\n"
                                                ",conv2d,4,8,10.5\n,conv2d,8,8,"
                                             << eight_bits << "\nfc,,8,8,1\n";
  };
  write(20);
  const std::vector<std::string> recipe = {"allocate.budget={average_bits: 8.0, latency: 45}", "allocate.bits=[3, 8]",
                                           "allocate.activation_bits=[8]", "allocate.latency=times.csv"};
  const auto first = pipeline::Run(SharedOptions(folder, recipe), SilentSink());
  int wide = 0;
  for (int l = 0; l < 3; ++l) wide += first.plan.layers[static_cast<std::size_t>(l)].bits == 8 ? 1 : 0;
  CHECK(wide == 1);  // 10.5 + 10.5 + 20 + 1
  CHECK(first.plan.achieved.latency == 42.0);
  CHECK_THAT(ReadFile(folder.path / "out/plan.yaml", "plan"), ContainsSubstring("latency: 42"));
  write(10);  // now eight bits are faster than three
  const auto second = pipeline::Run(SharedOptions(folder, recipe), SilentSink());
  CHECK(second.plan.achieved.latency == 31.0);
  for (const auto& stage : second.stages)
    CHECK(stage.reused == (stage.name != "allocate" && stage.name != "apply" && stage.name != "verify"));
  // Plans with fewer bits would take longer: the curve of the page leaves them out.
  const auto fastest = pipeline::Allocate(
      SharedOptions(folder, {"allocate.budget={average_bits: 8.0, latency: 31.2}", recipe[1], recipe[2], recipe[3]}),
      SilentSink());
  CHECK(fastest.plan.achieved.latency == 31.0);
  CHECK_FALSE(fastest.page_file.empty());
  const auto refusal = [&](std::vector<std::string> overrides) {
    try {
      (void)pipeline::Allocate(SharedOptions(folder, std::move(overrides)), SilentSink());
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return std::string(error.what());
    }
    return std::string("nothing was refused");
  };
  CHECK_THAT(refusal({"allocate.budget={average_bits: 3.0, latency: 31.2}", recipe[1], recipe[2], recipe[3]}),
             ContainsSubstring("nanoseconds of latency"));
  CHECK_THAT(refusal({recipe[0], recipe[1], recipe[2]}), ContainsSubstring("name a table in allocate.latency"));
  CHECK_THAT(refusal({recipe[0], recipe[1], "allocate.activation_bits=[16]", recipe[3]}),
             ContainsSubstring("no row covers layer a with 3-bit weights and 16-bit activations"));
  CHECK_THAT(refusal({recipe[0], recipe[1], recipe[2], recipe[3], "allocate.allocator=greedy"}),
             ContainsSubstring("take exact or lagrangian"));
  CHECK_THAT(refusal({recipe[0], recipe[1], recipe[2], "allocate.latency=nothing.csv"}),
             ContainsSubstring("table of latencies not found"));
  // Together with widths of activations.
  std::ofstream(folder.path / "times.csv") << "layer,kind,weight_bits,activation_bits,microseconds\n"
                                              ",,4,4,10\n,,8,8,30\n,,8,4,20\n,,32,32,50\n";
  const auto pairs = pipeline::Allocate(
      SharedOptions(folder, {"allocate.budget={average_bits: 8.0, latency: 90}", "allocate.bits=[4, 8]",
                             "allocate.activation_bits=[4, 8]", recipe[3], "allocate.exclude=[fc]"}),
      SilentSink());
  CHECK(*pairs.plan.achieved.latency <= 90.0);
  CHECK(*pairs.plan.achieved.latency >= 80.0);  // 50 of fc in float
}

}  // namespace
}  // namespace bitplan
