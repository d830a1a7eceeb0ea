#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/counted.h"
#include "bitplan/core/figures.h"
#include "cli/render.h"
#include "cli/render_parts.h"
#include "cli/table.h"

namespace bitplan::cli {
namespace {

constexpr std::ptrdiff_t kAfterUsed = 3, kAfterAccuracy = 6, kAfterDrop = 8;  // columns

// Sentences below one another, every line behind an empty label but the first.
std::string Labelled(const std::string& label, const std::string& sentences) {
  constexpr std::size_t kLabel = 19, kLineWidth = 118;
  std::string text = fmt::format("{:<{}}", label, kLabel);
  std::size_t column = kLabel, begin = 0;
  while (begin < sentences.size()) {
    const auto end = std::min(sentences.find(' ', begin), sentences.size());
    if (column + (end - begin) > kLineWidth) {
      text.back() = '\n';
      text += std::string(kLabel, ' ');
      column = kLabel;
    }
    text += sentences.substr(begin, end - begin) + " ";
    column += end - begin + 1;
    begin = end + 1;
  }
  text.back() = '\n';
  return text;
}

std::string RecommendationText(const Comparison& comparison) {
  const auto& recommended = comparison.recommended;
  if (recommended.budgets.empty()) return "";
  const auto line = [&](std::size_t index) {
    const auto& plan = comparison.plans[index];
    const auto& corrected = plan.float_corrected;
    return fmt::format("{}, {} ({} with what stays in float), drop {}{}: {}", plan.Name(),
                       Counted(plan.achieved.stored_bytes, "byte"), Grouped(plan.achieved.network_bytes),
                       PointsText(plan.drop, 1.0),
                       corrected ? ", corrected " + PointsText(corrected->accuracy_drop, 1.0) : "", plan.file);
  };
  std::string text;
  for (const auto index : recommended.budgets) {
    text += fmt::format("{:<18} {}: {}\n", index == recommended.budgets.front() ? "recommended" : "",
                        comparison.plans[index].budget.Words(), line(index));
  }
  text += recommended.overall
              ? fmt::format("                   over all: {}, {}\n",
                            comparison.plans[*recommended.overall].budget.Words(), line(*recommended.overall))
              : fmt::format("                   over all: none is surely within {} of float\n",
                            Quantity(100.0 * recommended.tolerance, "point"));
  text += Labelled("rule", RecommendationRule(comparison));
  return text +
         Labelled("chosen on", fmt::format("{}, {}. {}", recommended.data, Counted(recommended.samples, "sample"),
                                           RecommendationCaveat(comparison)));
}

// Every further seed has the same stages.
std::vector<pipeline::StageStatus> StagesOfFirstSeed(const pipeline::CompareReport& report) {
  std::vector<pipeline::StageStatus> stages;
  for (const auto& stage : report.stages) {
    const auto same = [&](const pipeline::StageStatus& other) { return other.name == stage.name; };
    if (std::none_of(stages.begin(), stages.end(), same)) stages.push_back(stage);
  }
  return stages;
}

}  // namespace

std::string Text(const pipeline::CompareReport& report) {
  const auto& comparison = report.comparison;
  const bool repeated = comparison.calibration_seeds.size() > 1;
  const auto corrected = PlansOfCorrectedFloats(comparison);
  const std::string score = FigureTitle(comparison.score);
  std::vector<std::string> columns = {">budget", "allocator", ">used",         ">bytes", ">whole network", ">" + score,
                                      ">NLL",    ">drop",     ">over uniform", "best",   "choice"};
  if (!corrected.empty()) columns.insert(columns.begin() + kAfterDrop, ">drop, corrected");
  if (repeated) columns.insert(columns.begin() + kAfterAccuracy, ">sd");
  const bool pairs = !comparison.plans.empty() && comparison.plans.front().budget.IsPair();
  if (pairs) columns.insert(columns.begin() + kAfterUsed, ">bit operations");
  Table table(columns);
  const ComparedBudget* budget = nullptr;
  for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
    const auto& plan = comparison.plans[i];
    const bool same = budget != nullptr && plan.budget == *budget;
    if (budget != nullptr && !same) table.Rule();
    const auto shown = same ? std::string() : plan.budget.Name();
    budget = &plan.budget;
    const auto name = plan.Name();
    if (!plan.failure.empty()) {
      table.Row({shown, name, "no plan"});
      continue;
    }
    std::vector<std::string> row = {shown,
                                    name,
                                    fmt::format("{:.3f}", plan.achieved.average_bits),
                                    Grouped(plan.achieved.stored_bytes),
                                    Grouped(plan.achieved.network_bytes),
                                    fmt::format("{:.2f}", 100.0 * plan.metrics.accuracy),
                                    fmt::format("{:.4f}", plan.metrics.nll),
                                    PointsText(plan.drop, 1.0),
                                    plan.below_uniform ? PointsText(*plan.below_uniform, -1.0) : std::string(),
                                    plan.below_best.drop == 0.0 ? "best"
                                    : plan.tie_with_best        ? "tie"
                                                                : "",
                                    comparison.recommended.overall == i ? "ship"
                                    : comparison.recommended.Holds(i)   ? "pick"
                                                                        : ""};
    if (!corrected.empty()) {
      const auto& against = plan.float_corrected;
      row.insert(row.begin() + kAfterDrop, against ? PointsText(against->accuracy_drop, 1.0) : "the same");
    }
    if (repeated) row.insert(row.begin() + kAfterAccuracy, fmt::format("{:.2f}", 100.0 * plan.accuracy_spread));
    if (pairs) row.insert(row.begin() + kAfterUsed, Grouped(static_cast<std::int64_t>(std::llround(plan.bops))));
    table.Row(row);
  }
  auto text = table.Render() + "\n";
  text += fmt::format("model              {}\n", comparison.model);
  text += fmt::format("measured on        {}, {}, float {} {:.2f}{}, NLL {:.4f}\n", comparison.data,
                      Counted(comparison.samples, "sample"), score, 100.0 * comparison.float_model.accuracy,
                      FindFigureKind(comparison.score).share ? " %" : "", comparison.float_model.nll);
  for (const auto* plan : corrected) {
    text += fmt::format("{:<18} batch norm {}\n", plan == corrected.front() ? "float, corrected" : "",
                        CorrectedFloatText(*plan));
  }
  if (!corrected.empty()) {
    text += "drop, corrected    from the float network with the plan's correction; the same: that does not change it\n";
  }
  if (comparison.left_in_float.weights > 0) text += LeftInFloatText(comparison.left_in_float);
  text += "bytes              of the planned layers, packed; whole network: with what stays in float\n";
  text += Labelled("intervals", IntervalsMeaning(comparison) +
                                    fmt::format("; points of {}. Tie: the interval to the best holds 0 (not corrected "
                                                "for choosing the best of so many)",
                                                score));
  if (repeated) {
    text +=
        Labelled("seeds", fmt::format("{0} and NLL are means of {1}; sd is the standard deviation of the {0}; "
                                      "widths, bytes and plans are those of the first",
                                      score, Counted(std::ssize(comparison.calibration_seeds), "calibration seed")));
  }
  for (const auto& lead : comparison.leads) {
    text += fmt::format("{:<18} {}: {} {:+.2f} over {}, p {:.2g}\n",
                        &lead == comparison.leads.data() ? "ours, baselines" : "", lead.budget.Words(), lead.ours,
                        100.0 * lead.lead + 0.0, lead.baseline, lead.p);
  }
  if (!comparison.leads.empty())
    text += "                   (best against best; p corrected for choosing the one ahead and its rival)\n";
  text += RecommendationText(comparison) + NotesText(comparison.notes);
  for (const auto& plan : comparison.plans) {
    if (!plan.failure.empty())
      text += fmt::format("no plan            {} at {}: {}\n", plan.allocator, plan.budget.Name(), plan.failure);
  }
  text += StagesText(StagesOfFirstSeed(report));
  if (!report.files.plots)
    text += "plots              gnuplot was not found or failed; data and scripts are in plots/\n";
  const auto plans = report.files.csv.parent_path() / "compare-plans";
  return text + fmt::format("plans              {}\ntable              {}\nreport             {}\n",
                            (plans / "").string(), report.files.csv.string(), report.files.html.string());
}

}  // namespace bitplan::cli
