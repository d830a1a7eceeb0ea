#include "bitplan/pipeline/rank.h"

#include <algorithm>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "bitplan/core/suggest.h"
#include "bitplan/sensitivity/joint_plans.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

struct Variant {
  std::string name, metric, estimator;
};

// Every metric of the list; the ones that read a posterior with each estimator.
std::vector<Variant> Variants(const std::vector<std::string>& wanted) {
  std::vector<Variant> all;
  for (const auto& metric : SensitivityMetrics()) {
    if (!metric.needs_posterior) {
      all.push_back({metric.name, metric.name, ""});
      continue;
    }
    for (const char* estimator : {"laplace", "svi"}) {
      all.push_back({std::string(metric.name) + "-" + estimator, metric.name, estimator});
    }
  }
  if (wanted.empty()) return all;
  std::vector<std::string> names;
  for (const auto& variant : all) names.push_back(variant.name);
  std::vector<Variant> chosen;
  for (const auto& name : wanted) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw Error(ErrorKind::kUsage, UnknownNameMessage("sensitivity metric", name, names));
    chosen.push_back(all[static_cast<std::size_t>(found - names.begin())]);
  }
  return chosen;
}

double Predict(const AllocationProblem& table, const std::vector<int>& columns) {
  double rise = 0.0;
  for (std::size_t u = 0; u < columns.size(); ++u) rise += table.loss_rise[u][static_cast<std::size_t>(columns[u])];
  return rise;
}

void Correlate(const RankReport& report, RankRow& row) {
  row.spearman_divergence = SpearmanCorrelation(row.predicted, report.divergence);
  row.spearman_loss = SpearmanCorrelation(row.predicted, report.loss_rise);
}

}  // namespace

RankReport RankMetrics(const RankOptions& options, ProgressSink& progress) {
  const auto variants = Variants(options.metrics);
  auto recipe = options.recipe;
  recipe.overrides.emplace_back("allocate.bits=[0, 1, 2, 3, 4, 5, 6, 7, 8]");
  StageChain chain(recipe, progress);
  RankReport report;
  report.model = chain.Model().name;
  auto inputs = chain.Inputs(chain.recipe().sensitivity.metric, chain.recipe().posterior.estimator, false);
  inputs.options.samples = options.samples;
  auto plans = DrawRandomPlans(inputs, options.plans, options.limit, chain.recipe().seed, progress);
  report.drawn = plans.drawn;
  for (std::size_t p = 0; p < plans.columns.size(); ++p) {
    auto& bits = report.bits.emplace_back();
    for (const int column : plans.columns[p]) bits.push_back(inputs.widths[static_cast<std::size_t>(column)]);
    report.divergence.push_back(plans.rises[p].divergence);
    report.loss_rise.push_back(plans.rises[p].loss_rise);
  }
  for (const auto& variant : variants) {
    const auto& table = chain.Table(variant.metric, variant.estimator);
    RankRow row{.metric = variant.name};
    const auto& status = chain.statuses().back();
    if (!status.reused) row.seconds = status.seconds;
    for (const auto& columns : plans.columns) row.predicted.push_back(Predict(table, columns));
    Correlate(report, row);
    for (const auto& note : Oddities(Plan{}, {.table = &table})) report.notes.push_back(variant.name + ": " + note);
    report.rows.push_back(std::move(row));
    if (!FindSensitivityMetric(variant.metric).keeps_displacements) continue;
    RankRow joint{.metric = variant.name + ", logits added"};
    for (const auto& columns : plans.columns) joint.predicted.push_back(chain.Displacements().Divergence(columns));
    Correlate(report, joint);
    report.rows.push_back(std::move(joint));
  }
  return report;
}

}  // namespace bitplan::pipeline
