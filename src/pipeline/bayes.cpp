#include "bitplan/pipeline/bayes.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <list>
#include <utility>

#include "bitplan/core/error.h"
#include "pipeline/bayes_changes.h"
#include "pipeline/bayes_stages.h"
#include "pipeline/checks.h"
#include "pipeline/oddities.h"
#include "training/tasks.h"

namespace bitplan::pipeline {
namespace {

// The histograms: a joint row at four bits where there is one, fine-tuned where it is.
void Picture(BayesComparison& comparison, const BayesSetup& setup, const BayesFolder& folder) {
  const BayesRow* chosen = nullptr;
  int best = -1;
  for (const BayesRow& row : comparison.rows) {
    if (row.scheme.empty() || row.scheme == "float") continue;
    const int score = 4 * (row.scheme == "jq") + 2 * (row.bits == 4.0) + (row.stage == "fine-tuned");
    if (score > best) {
      best = score;
      chosen = &row;
    }
  }
  if (chosen == nullptr) return;
  comparison.pictured = chosen->name;
  const auto per_image = [&](const std::string& name) {
    return LoadPerImage(setup, folder.File(fmt::format("seed-{}/{}.pt", setup.recipe.seed, name)));
  };
  const auto before = per_image("float"), after = per_image(chosen->name);
  for (const auto& [role, data] : setup.Roles()) {
    comparison.histograms.push_back(
        {data, before.at(role)[2], before.at(role)[3], after.at(role)[2], after.at(role)[3]});
  }
}

// Of means and standard deviations, the mean over the seeds.
double AverageBitsOf(const BayesRow& row, const BayesSetup& setup) {
  double bits = 0.0, parameters = 0.0;
  for (const auto& seed : row.seeds) {
    for (std::size_t l = 0; l < seed.widths.size(); ++l) {
      const auto weights = static_cast<double>(setup.base.layers[l].weights());
      bits += weights * (seed.widths[l].mean + seed.widths[l].sigma);
      parameters += 2.0 * weights;
    }
  }
  return bits / parameters;
}

// What is odd about the float networks on the images that they are to know.
std::vector<std::string> NotesOn(const BayesRow& reference, const BayesSetup& setup) {
  Verification verified;
  verified.data = setup.Roles().front().second;
  verified.samples = setup.first->splits.front().images.labels.size(0);
  for (const auto& seed : reference.seeds) {
    verified.float_model.accuracy +=
        seed.splits.at(kClean).metrics.accuracy / static_cast<double>(reference.seeds.size());
  }
  Plan plan;
  plan.verified = verified;
  return Oddities(plan, {.classes = setup.first->data.train.classes});
}

}  // namespace

BayesReport Bayes(const RecipeOptions& options, ProgressSink& progress) {
  const BayesSetup setup(options);
  for (const auto& warning : setup.warnings) progress.Warn(warning);
  const auto& bayes = setup.recipe.bayes;
  BayesFolder folder(CheckedFolder(options, setup.recipe), progress);
  const auto specs = Rows(bayes);
  const bool has_plan = bayes.plan.average_bits > 0.0;

  std::vector<BayesRow> rows = {{.name = "float"}};
  for (const RowSpec& spec : specs) {
    rows.push_back({.name = spec.name,
                    .scheme = spec.scheme,
                    .stage = spec.stage,
                    .sigma_scale = spec.sigma_scale,
                    .bits = spec.bits});
  }
  if (has_plan) {
    rows.push_back({.name = fmt::format("plan-{:g}", bayes.plan.average_bits),
                    .scheme = "plan",
                    .stage = "fine-tuned",
                    .sigma_scale = "log",
                    .bits = bayes.plan.average_bits});
  }
  for (BayesRow& row : rows) row.seeds.resize(static_cast<std::size_t>(bayes.seeds));
  std::list<BayesSeed> seeds;
  // Every row needs the float network; then what takes longest, so that no thread is left with it at the end.
  enum Rank { kFloat, kPlan, kFineTuned, kRounded };
  std::vector<Task> tasks;
  for (std::size_t s = 0; s < static_cast<std::size_t>(bayes.seeds); ++s) {
    const std::uint64_t number = setup.recipe.seed + s;
    BayesSeed& seed = seeds.emplace_back(setup, folder, number);
    const auto add = [&](Rank rank, std::size_t r, auto work) {
      tasks.push_back({rank, fmt::format("seed {} {}", number, rows[r].name),
                       [&rows, r, s, work](ProgressSink& sink) { rows[r].seeds[s] = work(sink); }});
    };
    add(kFloat, 0, [&seed](ProgressSink& sink) { return seed.Float(sink); });
    for (std::size_t r = 0; r < specs.size(); ++r) {
      add(specs[r].stage == "trained" ? kRounded : kFineTuned, 1 + r,
          [&seed, &spec = specs[r]](ProgressSink& sink) { return seed.Row(spec, sink); });
    }
    if (has_plan) {
      add(kPlan, rows.size() - 1,
          [&seed, name = rows.back().name](ProgressSink& sink) { return seed.Plan(name, sink); });
    }
  }
  std::ranges::stable_sort(tasks, {}, &Task::rank);
  RunTasks(tasks, progress);

  BayesReport report;
  auto& comparison = report.comparison;
  comparison.name = setup.recipe.name;
  comparison.model = setup.model_name;
  for (const auto& layer : setup.base.layers) comparison.layers.push_back(layer.name);
  comparison.data = setup.Roles();
  for (const auto& split : setup.first->splits) comparison.images[split.role] = split.images.size();
  comparison.draws = bayes.draws;
  const bool controlled = rows.size() > 1 && rows[1].name == kControl;
  for (std::size_t r = 1; r < rows.size(); ++r) {
    rows[r].from_float = ChangesOf(rows[0], rows[r], setup, folder);
    if (controlled && r > 1) rows[r].from_control = ChangesOf(rows[1], rows[r], setup, folder);
  }
  if (has_plan) rows.back().bits = AverageBitsOf(rows.back(), setup);  // a cap may have raised the budget
  comparison.rows = std::move(rows);
  Picture(comparison, setup, folder);
  folder.WriteTogether(
      [&](const std::filesystem::path& place) { report.files = WriteBayesComparison(comparison, place); });
  report.notes = NotesOn(comparison.rows.front(), setup);
  report.folder = folder.path();
  report.stages = folder.statuses();
  return report;
}

}  // namespace bitplan::pipeline
