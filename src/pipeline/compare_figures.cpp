#include "pipeline/compare_figures.h"

#include <cmath>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "bitplan/core/random.h"
#include "pipeline/recommend.h"

namespace bitplan::pipeline {
namespace {

PairedComparison PairedOver(const SeedOutcomes& better, const SeedOutcomes& worse, SeedSamples samples,
                            const Recipe& recipe) {
  return ComparePaired(better, worse, samples, recipe.verify.bootstrap, RandomStream(recipe.seed, "verify/bootstrap"));
}

// Plans at `budget`, by their index.
std::vector<std::size_t> PlansAt(const Comparison& comparison, const ComparedBudget& budget) {
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
    if (comparison.plans[i].budget == budget && comparison.plans[i].failure.empty()) indices.push_back(i);
  }
  return indices;
}

bool IsBetter(const Metrics& metrics, const Metrics& than) {
  return metrics.accuracy > than.accuracy || (metrics.accuracy == than.accuracy && metrics.nll < than.nll);
}

// Means over seeds; nothing where no seed's correction changes the float network.
std::optional<Metrics> MeanFloatCorrected(const ComparedPlan& plan, const Metrics& float_model) {
  std::vector<Metrics> of_seeds;
  bool any = false;
  for (const SeedPlan& seed : plan.seeds) {
    any = any || seed.float_corrected;
    of_seeds.push_back(seed.float_corrected.value_or(float_model));
  }
  return any ? std::optional<Metrics>(MeanOf(of_seeds)) : std::nullopt;
}

// Different plans of one side, by the widths that they have with every seed.
struct Side {
  std::vector<std::string> names;
  std::vector<SeedOutcomes> correct;
  std::set<std::vector<std::vector<int>>> seen;

  void Add(const ComparedPlan& plan, const SeedOutcomes& outcomes) {
    std::vector<std::vector<int>> widths;
    for (const SeedPlan& seed : plan.seeds) {
      widths.push_back(seed.bits);
      widths.back().insert(widths.back().end(), seed.activation_bits.begin(), seed.activation_bits.end());
    }
    if (!seen.insert(std::move(widths)).second) return;
    names.push_back(plan.allocator);
    correct.push_back(outcomes);
  }
};

}  // namespace

Metrics MeanOf(const std::vector<Metrics>& of_seeds) {
  Metrics mean = of_seeds.front();
  const auto average = [&](double& value, auto of) {
    if (of_seeds.size() == 1) return;
    value = 0.0;
    for (const Metrics& metrics : of_seeds) value += of(metrics);
    value /= static_cast<double>(of_seeds.size());
  };
  for (double Metrics::*figure : {&Metrics::accuracy, &Metrics::nll, &Metrics::brier, &Metrics::ece}) {
    average(mean.*figure, [&](const Metrics& metrics) { return metrics.*figure; });
  }
  for (std::size_t i = 0; i < mean.figures.size(); ++i) {
    average(mean.figures[i].value, [&](const Metrics& metrics) { return metrics.figures.at(i).value; });
  }
  return mean;
}

void SumUpSeeds(ComparedPlan& plan) {
  const SeedPlan& first = plan.seeds.front();
  plan.bits = first.bits;
  plan.activation_bits = first.activation_bits;
  plan.bops = first.bops;
  plan.achieved = first.achieved;
  plan.common_rise = first.common_rise;
  plan.allocate_ms = first.allocate_ms;
  plan.note = first.note;
  plan.correction = first.correction;
  plan.file = first.file;
  std::vector<Metrics> metrics, choices;
  for (const SeedPlan& seed : plan.seeds) {
    metrics.push_back(seed.metrics);
    choices.push_back(seed.choice);
  }
  plan.metrics = MeanOf(metrics);
  plan.choice = MeanOf(choices);
  double squares = 0.0;
  for (const SeedPlan& seed : plan.seeds) squares += std::pow(seed.metrics.accuracy - plan.metrics.accuracy, 2.0);
  if (plan.seeds.size() > 1) plan.accuracy_spread = std::sqrt(squares / static_cast<double>(plan.seeds.size() - 1));
}

void Judge(Comparison& comparison, const MeasuredRows& rows, const Recipe& recipe) {
  for (const ComparedBudget& budget : comparison.Budgets()) {
    const auto indices = PlansAt(comparison, budget);
    if (indices.empty()) continue;
    std::size_t best = indices.front();
    std::optional<std::size_t> uniform;
    for (const std::size_t i : indices) {
      if (comparison.plans[i].allocator == "uniform") uniform = i;
      if (IsBetter(comparison.plans[i].metrics, comparison.plans[best].metrics)) best = i;
    }
    for (const std::size_t i : indices) {
      ComparedPlan& plan = comparison.plans[i];
      const MeasuredRow& row = rows.plans[i];
      const auto below = [&](const MeasuredRow& other) {
        return PairedOver(other.verify, row.verify, rows.verify, recipe);
      };
      plan.drop = below(rows.reference);
      if (const auto metrics = MeanFloatCorrected(plan, comparison.float_model)) {
        plan.float_corrected =
            FloatCorrected{*metrics, PairedOver(row.float_corrected, row.verify, rows.verify, recipe)};
      }
      plan.choice_drop = PairedOver(rows.reference.calibration, row.calibration, rows.calibration, recipe);
      plan.below_best = below(rows.plans[best]);
      plan.tie_with_best = plan.below_best.ci_low <= 0.0;
      if (uniform) plan.below_uniform = below(rows.plans[*uniform]);
    }
  }
}

void AddLeads(Comparison& comparison, const MeasuredRows& rows) {
  for (const ComparedBudget& budget : comparison.Budgets()) {
    Side ours, baselines;
    for (const std::size_t i : PlansAt(comparison, budget)) {
      (comparison.plans[i].baseline ? baselines : ours).Add(comparison.plans[i], rows.plans[i].verify);
    }
    if (ours.names.empty() || baselines.names.empty()) continue;
    const FamilyLead lead = CompareFamilies(ours.correct, baselines.correct, rows.verify);
    comparison.leads.push_back({budget, ours.names[lead.first], baselines.names[lead.second], lead.lead, lead.p});
  }
}

void Recommend(Comparison& comparison, const MeasuredRows& rows, const Recipe& recipe) {
  auto& recommended = comparison.recommended;
  if (recommended.samples < 2) return;  // no choice on one image
  const RandomStream stream(recipe.seed, "verify/bootstrap");
  std::vector<ShipCandidate> picks;
  for (const ComparedBudget& budget : comparison.Budgets()) {
    std::vector<ShipCandidate> candidates;
    std::vector<std::size_t> indices;
    for (const std::size_t i : PlansAt(comparison, budget)) {
      const ComparedPlan& plan = comparison.plans[i];
      if (plan.random && plan.baseline) continue;  // `random` stands for chance, nobody ships that
      candidates.push_back({plan.achieved.stored_bytes, rows.plans[i].calibration, rows.plans[i].calibration_nll});
      indices.push_back(i);
    }
    const auto pick = SmallestAsGoodAsBest(candidates, rows.calibration, recipe.verify.bootstrap, stream);
    if (!pick || recommended.Holds(indices[*pick])) continue;  // a budget may be named twice
    picks.push_back(candidates[*pick]);
    recommended.budgets.push_back(indices[*pick]);
  }
  const auto overall = SmallestWithin(picks, rows.reference.calibration, rows.calibration, recommended.tolerance,
                                      recipe.verify.bootstrap, stream);
  if (overall) recommended.overall = recommended.budgets[*overall];
}

}  // namespace bitplan::pipeline
