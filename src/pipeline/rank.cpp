#include "bitplan/pipeline/rank.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/random.h"
#include "bitplan/core/statistics.h"
#include "bitplan/core/suggest.h"
#include "bitplan/sensitivity/joint_plans.h"
#include "pipeline/checks.h"
#include "pipeline/clock.h"
#include "pipeline/stage_chain.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/activation_tables.h"

namespace bitplan::pipeline {
namespace {

struct Variant {
  std::string name, metric, estimator;
};

bool KnowsActivations(const SensitivityMetric& metric) {
  return metric.takes_activations || metric.measure_activations != nullptr;
}

// Every metric of the list, and `activations`: that has a table of those too; the ones that read a posterior with each
// estimator.
std::vector<Variant> Variants(const std::vector<std::string>& wanted, bool activations) {
  std::vector<Variant> all;
  for (const auto& metric : SensitivityMetrics()) {
    if (activations && !KnowsActivations(metric)) continue;
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

// Columns into allocate.bits of the chain, and of the tensors that layers read into allocate.activation_bits, or none.
struct PlanColumns {
  std::vector<int> weights, activations{};
};

double Predict(const AllocationProblem& table, const PlanColumns& columns) {
  double rise = 0.0;
  for (std::size_t u = 0; u < columns.weights.size(); ++u) {
    if (columns.weights[u] != kFloatColumn) rise += table.loss_rise[u][static_cast<std::size_t>(columns.weights[u])];
  }
  return rise;
}

// Every tensor once; what a layer's weights and the tensor that it reads cost together for every layer.
double Predict(const ActivationRises& rises, const PlanColumns& columns) {
  double rise = 0.0;
  for (std::size_t l = 0; l < columns.activations.size(); ++l) {
    if (columns.activations[l] == kFloatColumn) continue;
    const auto a = static_cast<std::size_t>(columns.activations[l]);
    if (rises.tensors[l] == l) rise += rises.loss_rise[l][a];
    if (rises.together.empty() || columns.weights[l] == kFloatColumn) continue;
    rise += rises.together[l][static_cast<std::size_t>(columns.weights[l])][a];
  }
  return rise;
}

// A metric's prediction of a plan.
struct Predictor {
  std::string name;
  double seconds = 0.0;
  std::function<double(const PlanColumns& columns)> predict;
};

// By the variant's own principle, on the images of its table of weights.
ActivationRises ActivationsOf(StageChain& chain, const Variant& variant, const ActivationLevels& levels,
                              ProgressSink& progress) {
  if (FindSensitivityMetric(variant.metric).takes_activations) return chain.ActivationTable(variant.metric);
  return MeasureActivationTable(chain.Inputs(variant.metric, chain.recipe().posterior.estimator, false), levels,
                                progress);
}

// Tables of weights and of activations, added.
std::vector<Predictor> PairPredictors(StageChain& chain, const std::vector<Variant>& variants,
                                      const ActivationLevels& levels, RankReport& report, ProgressSink& progress) {
  std::vector<Predictor> predictors;
  for (const auto& variant : variants) {
    const auto& table = chain.Table(variant.metric, variant.estimator);
    const auto& status = chain.statuses().back();
    const double seconds = status.reused ? 0.0 : status.seconds;
    for (const auto& note : Oddities(Plan{}, {.table = &table})) report.notes.push_back(variant.name + ": " + note);
    const auto start = Clock::now();
    const ActivationRises rises = ActivationsOf(chain, variant, levels, progress);
    predictors.push_back({variant.name, seconds + SecondsSince(start), [&table, rises](const PlanColumns& columns) {
                            return Predict(table, columns) + Predict(rises, columns);
                          }});
  }
  return predictors;
}

// Every variant's table, and logits added where it keeps displacements.
std::vector<Predictor> Predictors(StageChain& chain, const std::vector<Variant>& variants, RankReport& report,
                                  std::vector<const AllocationProblem*>& tables) {
  std::vector<Predictor> predictors;
  for (const auto& variant : variants) {
    const auto& table = chain.Table(variant.metric, variant.estimator);
    const auto& status = chain.statuses().back();
    tables.push_back(&table);
    predictors.push_back({variant.name, status.reused ? 0.0 : status.seconds,
                          [&table](const PlanColumns& columns) { return Predict(table, columns); }});
    for (const auto& note : Oddities(Plan{}, {.table = &table})) report.notes.push_back(variant.name + ": " + note);
    if (!FindSensitivityMetric(variant.metric).keeps_displacements) continue;
    const auto& displacements = chain.Displacements(variant.metric);
    predictors.push_back({variant.name + ", logits added", 0.0, [&displacements](const PlanColumns& columns) {
                            return displacements.Divergence(columns.weights);
                          }});
  }
  return predictors;
}

constexpr double kNear = 0.05;   // of the budget
constexpr int kMostTries = 100;  // per plan
constexpr int kPlansNear = 20;   // each is rounded and measured as it would be deployed
constexpr int kRandomPlans = 200;
constexpr std::size_t kFewest = 3;
constexpr int kInFloat = 32;

// Different plans near `budget`, each the exact solution of one of the tables with its rises disturbed.
std::vector<std::vector<int>> PlansNear(const std::vector<const AllocationProblem*>& tables, AllocateOptions options,
                                        double budget, int count, std::uint64_t seed) {
  RandomStream stream(seed, "rank/near/" + std::to_string(budget));
  std::vector<std::vector<int>> plans;
  options.allocator = "exact";
  options.draws = 0;
  const Budget asked = options.budget;
  for (int tries = 0; std::ssize(plans) < count && tries < kMostTries * count; ++tries) {
    AllocationProblem table = *tables[static_cast<std::size_t>(tries) % tables.size()];
    table.replicates.clear();
    const double spread = stream.Uniform();
    for (auto& row : table.loss_rise) {
      for (double& rise : row) rise *= std::exp(spread * stream.Normal());
    }
    options.budget = asked.WithAverageBits(budget * (1.0 + kNear * stream.Uniform(-1.0, 1.0)));
    std::vector<int> bits;
    try {
      bits = Allocate(table, options, seed).bits;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) throw;
      continue;  // below the narrowest plan
    }
    double spent = 0.0, weights = 0.0;  // of what is not left in float
    for (std::size_t u = 0; u < bits.size(); ++u) {
      if (bits[u] > 8) continue;
      spent += bits[u] * static_cast<double>(table.units[u].weights);
      weights += static_cast<double>(table.units[u].weights);
    }
    const double average = spent / weights;
    if (std::abs(average - budget) > kNear * budget) continue;
    if (std::find(plans.begin(), plans.end(), bits) == plans.end()) plans.push_back(std::move(bits));
  }
  return plans;
}

std::vector<int> ColumnsOf(const std::vector<int>& bits, const std::vector<int>& widths) {
  std::vector<int> columns;
  for (const int width : bits) {
    const auto found = std::find(widths.begin(), widths.end(), width);
    columns.push_back(found == widths.end() ? kFloatColumn : static_cast<int>(found - widths.begin()));
  }
  return columns;
}

std::vector<int> BitsOf(const std::vector<int>& columns, const std::vector<int>& widths) {
  std::vector<int> bits;
  for (const int column : columns) {
    bits.push_back(column == kFloatColumn ? kInFloat : widths[static_cast<std::size_t>(column)]);
  }
  return bits;
}

RankReport RankNear(const RankOptions& options, const std::vector<Variant>& variants, ProgressSink& progress) {
  auto recipe = options.recipe;
  recipe.overrides.emplace_back("verify.split=calibration");
  StageChain chain(recipe, progress);
  RequireClassification(chain.recipe(), "bitplan compare --sensitivity");
  RequireOneActivationWidth(chain.recipe(), "compare --sensitivity --near");
  RankReport report;
  report.model = chain.Model().name;
  std::vector<const AllocationProblem*> tables;
  const auto predictors = Predictors(chain, variants, report, tables);
  const double float_nll = chain.MeasureFloat().calibration.metrics.nll;
  for (const double budget : options.near) {
    NearBudget& near = report.near.emplace_back();
    near.budget = budget;
    near.bits = PlansNear(tables, chain.recipe().allocate, budget, options.plans > 0 ? options.plans : kPlansNear,
                          chain.recipe().seed);
    if (near.bits.size() < kFewest) {
      throw Error(ErrorKind::kInfeasible,
                  fmt::format("a rank correlation needs {} plans, and within {:g} % of {:g} average bits there are {}; "
                              "give another --near or more widths in allocate.bits",
                              kFewest, 100.0 * kNear, budget, near.bits.size()));
    }
    for (const auto& bits : near.bits) {
      progress.Info(fmt::format("plan {} of {} near {:g} bits", near.loss_rise.size() + 1, near.bits.size(), budget));
      bool reused = false;
      const auto metrics = chain.MeasureBits(bits, {}, reused).calibration.metrics;
      near.loss_rise.push_back(metrics.nll - float_nll);
      near.accuracy.push_back(metrics.accuracy);
    }
    for (const auto& predictor : predictors) {
      RankRow& row = near.rows.emplace_back(RankRow{.metric = predictor.name, .seconds = predictor.seconds});
      for (const auto& bits : near.bits)
        row.predicted.push_back(predictor.predict({ColumnsOf(bits, tables.front()->widths)}));
      row.spearman_loss = SpearmanCorrelation(row.predicted, near.loss_rise);
    }
  }
  return report;
}

void Correlate(const RankReport& report, RankRow& row) {
  row.spearman_divergence = SpearmanCorrelation(row.predicted, report.divergence);
  row.spearman_loss = SpearmanCorrelation(row.predicted, report.loss_rise);
}

}  // namespace

RankReport RankMetrics(const RankOptions& options, ProgressSink& progress) {
  if (!options.near.empty()) return RankNear(options, Variants(options.metrics, false), progress);
  auto recipe = options.recipe;
  recipe.overrides.emplace_back("allocate.bits=[0, 1, 2, 3, 4, 5, 6, 7, 8]");
  StageChain chain(recipe, progress);
  RequireClassification(chain.recipe(), "bitplan compare --sensitivity");
  auto activation_widths = chain.recipe().allocate.activation_bits;
  std::sort(activation_widths.begin(), activation_widths.end());
  const bool pairs = activation_widths.size() > 1;
  const auto variants = Variants(options.metrics, pairs);
  RankReport report;
  report.model = chain.Model().name;
  auto inputs = chain.Inputs(chain.recipe().sensitivity.metric, chain.recipe().posterior.estimator, false);
  inputs.options.samples = options.samples;
  std::optional<ActivationLevels> levels;
  if (pairs) levels = FitActivationLevels(inputs, activation_widths, chain.recipe().quantizer.activation_range);
  const auto plans = DrawRandomPlans(inputs, options.plans > 0 ? options.plans : kRandomPlans, options.limit,
                                     chain.recipe().seed, progress, levels ? &*levels : nullptr);
  report.drawn = plans.drawn;
  std::vector<PlanColumns> columns;
  for (std::size_t p = 0; p < plans.columns.size(); ++p) {
    columns.push_back({plans.columns[p]});
    report.bits.push_back(BitsOf(plans.columns[p], inputs.widths));
    if (levels) {
      columns.back().activations = plans.activation_columns[p];
      report.activation_bits.push_back(BitsOf(plans.activation_columns[p], levels->widths));
    }
    report.divergence.push_back(plans.rises[p].divergence);
    report.loss_rise.push_back(plans.rises[p].loss_rise);
  }
  std::vector<const AllocationProblem*> tables;
  for (const auto& predictor : levels ? PairPredictors(chain, variants, *levels, report, progress)
                                      : Predictors(chain, variants, report, tables)) {
    RankRow& row = report.rows.emplace_back(RankRow{.metric = predictor.name, .seconds = predictor.seconds});
    for (const auto& plan : columns) row.predicted.push_back(predictor.predict(plan));
    Correlate(report, row);
  }
  return report;
}

}  // namespace bitplan::pipeline
