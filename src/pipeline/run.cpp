#include "bitplan/pipeline/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/ptq/apply.h"
#include "pipeline/drop_search.h"
#include "pipeline/plan_parts.h"
#include "pipeline/run_page.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

RunReport Report(const StageChain& chain, const Solution& solution) {
  RunReport report;
  report.folder = chain.folder().path();
  report.plan_file = chain.folder().File("plan.yaml");
  report.allocate_ms = solution.allocate_ms;
  report.shadow_prices = solution.shadow_prices;
  report.allocator_note = solution.note;
  report.pins = solution.pins;
  report.width_probabilities = solution.width_probabilities;
  return report;
}

bool SameFile(const std::filesystem::path& one, const std::filesystem::path& other) {
  return std::filesystem::weakly_canonical(one) == std::filesystem::weakly_canonical(other);
}

// Exports that lie beside the plan and were made from another one.
std::vector<std::string> StaleExports(StageChain& chain, const Plan& plan) {
  std::vector<std::string> notes;
  const std::string key = CodesKey(plan);
  for (const Exporter& exporter : Exporters()) {
    const bool own = std::string(exporter.file) == kNetworkFile;  // every run writes it
    if (own || !chain.folder().Wrote(exporter.file) || chain.folder().Find(ExportStage(exporter.name), key)) continue;
    notes.push_back(fmt::format("{} was exported from another plan; `bitplan export --to {}` writes that of this one",
                                exporter.file, exporter.name));
  }
  return notes;
}

// What is said of the data, and what is odd.
void Describe(RunReport& report, StageChain& chain) {
  report.classes = chain.ClassNames();
  report.sample = chain.SampleWord();
  report.weights_file = chain.recipe().model.weights;
  report.calibration_asked = chain.CalibrationAsked();
  report.notes = chain.Notes(report.plan);
  if (!SameFile(report.plan_file, chain.folder().File(kPlanFile))) return;
  for (std::string& note : StaleExports(chain, report.plan)) report.notes.push_back(std::move(note));
}

// Of a plan that an allocator chose here.
void DescribeChosen(RunReport& report, StageChain& chain) {
  Describe(report, chain);
  if (auto fused = chain.FusedNote(); !fused.empty()) report.notes.push_back(std::move(fused));
}

// Whether a plan file says nothing that this draft does not say: a killed run may have left it.
bool SaysTheSame(const std::filesystem::path& file, const Plan& draft) {
  try {
    const std::string text = ReadFile(file, "plan");
    const Plan plan = ParsePlan(text, file.string());
    const auto same = [](const PlanLayer& a, const PlanLayer& b) {
      return a.name == b.name && a.bits == b.bits && a.grid == b.grid && a.range == b.range &&
             a.activation_bits == b.activation_bits;
    };
    return text == DumpPlan(plan) && plan.allocator == draft.allocator &&
           plan.quantizer.range == draft.quantizer.range && plan.quantizer.rounding == draft.quantizer.rounding &&
           plan.quantizer.granularity == draft.quantizer.granularity &&
           (!RoundsActivations(draft) || (plan.quantizer.range_sweeps == draft.quantizer.range_sweeps &&
                                          plan.quantizer.activation_sums == draft.quantizer.activation_sums)) &&
           plan.quantizer.learned_steps == draft.quantizer.learned_steps &&
           plan.quantizer.exportable == draft.quantizer.exportable &&
           std::equal(plan.layers.begin(), plan.layers.end(), draft.layers.begin(), draft.layers.end(), same);
  } catch (const Error&) {
    return false;
  }
}

// A plan.yaml that somebody edited is theirs, verified or not: it is moved aside before another takes its name.
void KeepEdited(StageChain& chain, const Plan& draft, ProgressSink& progress) {
  auto& folder = chain.folder();
  const auto file = folder.File("plan.yaml");
  if (!std::filesystem::exists(file) || folder.Wrote("plan.yaml")) return;
  if (SaysTheSame(file, draft)) return folder.Adopt("plan.yaml");
  progress.Warn("plan.yaml is not as an allocator left it; it is now " + MoveAside(file, "edited").string());
}

// What lies where the user wants a plan must be one; one that somebody edited is moved aside.
void MakeRoom(const std::filesystem::path& target, ProgressSink& progress) {
  if (!std::filesystem::exists(target)) return;
  try {
    const auto text = ReadFile(target, "plan");
    if (text == DumpPlan(ParsePlan(text, target.string()))) return;
  } catch (const Error&) {
    throw Error(ErrorKind::kUsage, target.string() + " exists and is no plan; give --out-plan another name");
  }
  progress.Info(target.string() + " was edited by hand; it is now " + MoveAside(target, "edited").string());
}

// The plan of a file, for the model at hand: by its hash or, to `transfer` its widths, by its layers.
Plan LoadPlanFor(StageChain& chain, const std::filesystem::path& file, bool transfer) {
  const auto& network = chain.Model();
  const auto& hash = chain.ModelRecord().content;
  Plan plan = transfer ? TransferPlan(LoadPlan(file), network, hash) : FitPlan(LoadPlan(file), network, hash);
  if (transfer) chain.Rebase(plan);
  plan.model.note = chain.ModelNote();
  return plan;
}

// The rises were predicted for other widths.
void ForgetRestrictionCost(Plan& plan) {
  if (!plan.exportable) return;
  plan.exportable->predicted_loss_rise.reset();
  plan.exportable->unrestricted_loss_rise.reset();
}

// Prediction and sizes for the bits that the file holds now; gap and confidence stay only while the bits are those they
// were stated for.
void RefreshAchieved(StageChain& chain, Plan& plan) {
  std::vector<int> bits;
  for (const auto& layer : plan.layers) bits.push_back(layer.bits);
  const double rise = chain.PredictedLossRise(bits, plan.allocator) + chain.ActivationRise(ActivationBitsOf(plan));
  auto achieved = chain.Achieved(bits, rise);
  if (achieved.predicted_loss_rise == plan.achieved.predicted_loss_rise &&
      achieved.average_bits == plan.achieved.average_bits) {
    achieved.optimality_gap = plan.achieved.optimality_gap;
  } else {
    for (auto& layer : plan.layers) layer.confidence = -1.0;
    ForgetRestrictionCost(plan);
  }
  plan.achieved = achieved;
  chain.StateResources(plan);
  plan.left_in_float = chain.FloatPart(plan.layers);
  plan.guard.reset();  // it was about what was measured then
  if (plan.drop && plan.drop->sha256 != CodesKey(plan)) plan.drop.reset();
}

// A plan that is written and measured is not lost for want of a page about it.
std::filesystem::path Page(StageChain& chain, const Plan& plan, const std::vector<std::string>& notes,
                           ProgressSink& progress) {
  try {
    return LeaveRunPage(chain, plan, notes);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInterrupted) throw;
    progress.Warn(std::string("no report.html: ") + error.what());
    return {};
  }
}

// The plan that the recipe asks for, not applied yet.
Plan Drafted(StageChain& chain, RunReport& report, ProgressSink& progress) {
  std::optional<Plan> searched;
  if (chain.recipe().allocate.drop) searched = SearchDrop(chain, progress);
  const auto solution = chain.Solve();
  report = Report(chain, solution);
  Plan draft = chain.Draft(solution);
  chain.StateExportable(draft);
  if (!searched) return draft;
  draft.quantizer = searched->quantizer;  // with the corrections that were chosen in the search
  draft.drop = searched->drop;
  if (draft.drop->sha256 != CodesKey(draft)) {
    throw Error(ErrorKind::kInternal, "the plan is not the one that was found within the drop");
  }
  chain.Follow(draft);
  return draft;
}

}  // namespace

RunReport Run(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  RunReport report;
  report.plan = Drafted(chain, report, progress);
  KeepEdited(chain, report.plan, progress);
  report.corrections = chain.VerifyInFolder(report.plan);
  report.quantized_file = chain.folder().File("quantized.pt");
  report.packed_bytes = chain.packed_bytes();
  DescribeChosen(report, chain);
  report.page_file = Page(chain, report.plan, report.notes, progress);
  report.stages = chain.statuses();
  return report;
}

RunReport Allocate(const RecipeOptions& options, ProgressSink& progress) {
  StageChain chain(options, progress);
  RunReport report;
  report.plan = Drafted(chain, report, progress);
  KeepEdited(chain, report.plan, progress);
  if (!chain.PutInPlace(report.plan) && std::filesystem::exists(chain.folder().File("quantized.pt"))) {
    progress.Warn("quantized.pt is the network of the plan before; `bitplan verify` writes that of this one");
  }
  DescribeChosen(report, chain);
  report.page_file = Page(chain, report.plan, report.notes, progress);
  report.stages = chain.statuses();
  return report;
}

RunReport Verify(const VerifyPlanOptions& options, ProgressSink& progress) {
  StageChain chain(options.recipe, progress);
  const auto own_file = chain.folder().File("plan.yaml");
  const auto plan_file = options.plan.empty() ? own_file : options.plan;
  // A transferred plan leaves the file of the model that it was made for alone.
  const auto target = !options.out_plan.empty() ? options.out_plan : options.transfer ? own_file : plan_file;
  const bool in_folder = SameFile(target, own_file), in_place = SameFile(target, plan_file);
  if (!in_folder && !in_place) MakeRoom(target, progress);
  Plan plan = LoadPlanFor(chain, plan_file, options.transfer);
  std::optional<Plan> other;
  if (!options.against.empty()) other = LoadPlanFor(chain, options.against, false);
  if (!options.out_plan.empty()) EnsureWritableFolder(std::filesystem::absolute(target).parent_path());
  chain.Follow(plan);
  RefreshAchieved(chain, plan);
  chain.RefreshChoices(plan);
  if (options.guard) chain.Guard(plan);

  RunReport report;
  report.folder = chain.folder().path();
  report.plan_file = target;
  if (in_folder) {
    const bool edited = in_place && !chain.folder().Wrote("plan.yaml");
    if (!in_place) KeepEdited(chain, plan, progress);
    report.corrections = chain.VerifyInFolder(plan, edited);
    report.quantized_file = chain.folder().File("quantized.pt");
  } else {
    report.corrections = chain.VerifyInMemory(plan);
    WriteFileAtomically(target, DumpPlan(plan));
  }
  report.packed_bytes = chain.packed_bytes();
  report.plan = std::move(plan);
  if (other) {
    report.against = chain.Compare(report.plan, *other);
    report.against_file = options.against;
  }
  Describe(report, chain);
  if (in_folder) report.page_file = Page(chain, report.plan, report.notes, progress);
  report.stages = chain.statuses();
  return report;
}

}  // namespace bitplan::pipeline
