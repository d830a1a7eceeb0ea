#include "bitplan/pipeline/run.h"

#include <algorithm>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

RunReport Report(const StageChain& chain, const Solution& solution) {
  RunReport report;
  report.folder = chain.folder().path();
  report.plan_file = chain.folder().File("plan.yaml");
  report.allocate_ms = solution.allocate_ms;
  report.shadow_price = solution.shadow_price;
  report.allocator_note = solution.note;
  report.pins = solution.pins;
  report.width_probabilities = solution.width_probabilities;
  return report;
}

// Whether a plan file says nothing that this draft does not say: a killed run may have left it.
bool SaysTheSame(const std::filesystem::path& file, const Plan& draft) {
  try {
    const std::string text = ReadFile(file, "plan");
    const Plan plan = ParsePlan(text, file.string());
    const auto same = [](const PlanLayer& a, const PlanLayer& b) {
      return a.name == b.name && a.bits == b.bits && a.grid == b.grid && a.range == b.range;
    };
    return text == DumpPlan(plan) && plan.allocator == draft.allocator &&
           plan.quantizer.range == draft.quantizer.range && plan.quantizer.rounding == draft.quantizer.rounding &&
           plan.quantizer.granularity == draft.quantizer.granularity &&
           std::equal(plan.layers.begin(), plan.layers.end(), draft.layers.begin(), draft.layers.end(), same);
  } catch (const Error&) {
    return false;
  }
}

// A plan.yaml that somebody edited is theirs, verified or not: it is moved aside before another takes its name.
void KeepEdited(const StageChain& chain, const Plan& draft, ProgressSink& progress) {
  const auto file = chain.folder().File("plan.yaml");
  if (!std::filesystem::exists(file) || chain.OwnsPlan() || SaysTheSame(file, draft)) return;
  auto kept = chain.folder().File("plan.edited.yaml");
  for (int k = 2; std::filesystem::exists(kept); ++k) {
    kept = chain.folder().File("plan.edited-" + std::to_string(k) + ".yaml");
  }
  std::filesystem::rename(file, kept);
  progress.Info("plan.yaml is not as an allocator left it; it is now " + kept.string());
}

// Prediction and sizes for the bits that the file holds now; gap and confidence stay only while the bits are those they
// were stated for.
void RefreshAchieved(StageChain& chain, Plan& plan) {
  std::vector<int> bits;
  for (const auto& layer : plan.layers) bits.push_back(layer.bits);
  auto achieved = chain.Achieved(bits, chain.PredictedLossRise(bits, plan.allocator));
  if (achieved.predicted_loss_rise == plan.achieved.predicted_loss_rise &&
      achieved.average_bits == plan.achieved.average_bits) {
    achieved.optimality_gap = plan.achieved.optimality_gap;
  } else {
    for (auto& layer : plan.layers) layer.confidence = -1.0;
  }
  plan.achieved = achieved;
  plan.guard.reset();  // it was about what was measured then
}

}  // namespace

RunReport Run(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  const auto solution = chain.Solve();
  auto report = Report(chain, solution);
  report.plan = chain.Draft(solution);
  KeepEdited(chain, report.plan, progress);
  report.corrections = chain.VerifyInFolder(report.plan);
  chain.OwnPlan();
  report.quantized_file = chain.folder().File("quantized.pt");
  report.stages = chain.statuses();
  return report;
}

RunReport Allocate(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  const auto solution = chain.Solve();
  auto report = Report(chain, solution);
  report.plan = chain.Draft(solution);
  if (auto verified = chain.FindVerified(report.plan)) {
    report.plan = *std::move(verified);
  } else {
    KeepEdited(chain, report.plan, progress);
    WriteFileAtomically(report.plan_file, DumpPlan(report.plan));
    chain.OwnPlan();
    if (std::filesystem::exists(chain.folder().File("quantized.pt")) && !chain.IsApplied(report.plan)) {
      progress.Warn("quantized.pt is the network of the plan before; `bitplan verify` writes that of this one");
    }
  }
  report.stages = chain.statuses();
  return report;
}

RunReport Verify(const VerifyPlanOptions& options, ProgressSink& progress) {
  StageChain chain(options.recipe, progress);
  const auto plan_file = options.plan.empty() ? chain.folder().File("plan.yaml") : options.plan;
  const auto target = options.out_plan.empty() ? plan_file : options.out_plan;
  const auto fitted = [&](const std::filesystem::path& file) {
    return FitPlan(LoadPlan(file), chain.Model(), chain.ModelRecord().content);
  };
  Plan plan = fitted(plan_file);
  std::optional<Plan> other;
  if (!options.against.empty()) other = fitted(options.against);
  if (!options.out_plan.empty()) EnsureWritableFolder(std::filesystem::absolute(target).parent_path());
  chain.Follow(plan);
  RefreshAchieved(chain, plan);
  chain.RefreshChoices(plan);
  if (options.guard) chain.Guard(plan);

  RunReport report;
  report.folder = chain.folder().path();
  report.plan_file = target;
  if (std::filesystem::weakly_canonical(target) ==
      std::filesystem::weakly_canonical(chain.folder().File("plan.yaml"))) {
    const bool owned = chain.OwnsPlan();
    report.corrections = chain.VerifyInFolder(plan);
    if (owned) chain.OwnPlan();
    report.quantized_file = chain.folder().File("quantized.pt");
  } else {
    report.corrections = chain.VerifyInMemory(plan);
    WriteFileAtomically(target, DumpPlan(plan));
  }
  report.plan = std::move(plan);
  if (other) {
    report.against = chain.Compare(report.plan, *other);
    report.against_file = options.against;
  }
  report.stages = chain.statuses();
  return report;
}

}  // namespace bitplan::pipeline
