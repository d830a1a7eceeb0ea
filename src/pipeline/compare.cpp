#include "bitplan/pipeline/compare.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "pipeline/recommend.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

class Comparer {
 public:
  Comparer(const RecipeOptions& options, ProgressSink& progress) : chain_(options, progress), progress_(progress) {
    const auto& wanted = chain_.recipe().compare.allocators;
    for (const auto& allocator : Allocators()) {
      const bool named = std::find(wanted.begin(), wanted.end(), allocator.name) != wanted.end();
      // Every gain is stated against uniform, so it is always there.
      if (wanted.empty() || named || std::string(allocator.name) == "uniform") allocators_.push_back(&allocator);
    }
  }

  CompareReport Run() {
    CompareReport report;
    auto& comparison = report.comparison;
    const auto& network = chain_.Model();
    comparison.name = chain_.recipe().name;
    comparison.model = network.name;
    Describe(comparison);
    for (const double budget : chain_.recipe().compare.budgets) {
      for (const Allocator* allocator : allocators_) AddPlans(*allocator, budget, report);
    }
    const auto& plans = comparison.plans;
    if (plans.empty()) throw Error(ErrorKind::kUsage, "compare.budgets is empty; give average bits to compare at");
    if (std::all_of(plans.begin(), plans.end(), [](const ComparedPlan& plan) { return !plan.failure.empty(); })) {
      throw Error(ErrorKind::kInfeasible, "none of compare.budgets can be met: " + plans.front().failure);
    }
    comparison.left_in_float = LeftInFloatOf(plans);
    const auto reference = chain_.MeasureFloat();
    comparison.data = reference.verify.data;
    comparison.samples = static_cast<std::int64_t>(reference.verify.correct.size());
    comparison.float_model = reference.verify.metrics;
    Measure(comparison, report.measured);
    Judge(comparison, reference);
    AddLeads(comparison);
    Recommend(comparison, reference);
    comparison.notes = Notes(comparison, reference);
    chain_.folder().WriteTogether([&](const std::filesystem::path& place) {
      WritePlans(comparison, reference, place);
      report.files = WriteComparison(comparison, place);
      for (auto* file : {&report.files.csv, &report.files.json, &report.files.html}) {
        *file = chain_.folder().path() / file->lexically_relative(place);
      }
    });
    report.stages = chain_.statuses();
    return report;
  }

 private:
  // Every plan leaves the same layers alone: those that allocate.exclude names.
  LeftInFloat LeftInFloatOf(const std::vector<ComparedPlan>& plans) {
    const auto made = [](const ComparedPlan& plan) { return plan.failure.empty(); };
    const auto& bits = std::find_if(plans.begin(), plans.end(), made)->bits;
    std::vector<PlanLayer> layers;
    for (const Layer& layer : chain_.Model().layers) {
      layers.push_back({.name = layer.name, .shape = layer.shape, .bits = bits[layers.size()]});
    }
    return chain_.FloatPart(layers);
  }

  void Describe(Comparison& comparison) {
    const auto& units = chain_.Table().units;
    for (const auto& unit : units) {
      comparison.layers.push_back({unit.name, unit.weights, unit.log_sigma_percentiles});
    }
  }

  void AddPlans(const Allocator& allocator, double budget, CompareReport& report) {
    const auto& recipe = chain_.recipe();
    const int seeds = allocator.random ? recipe.compare.seeds : 1;
    for (int s = 0; s < seeds; ++s) {
      ComparedPlan plan;
      plan.allocator = allocator.name;
      plan.budget = budget;
      plan.seed = recipe.seed + static_cast<std::uint64_t>(s);
      plan.random = allocator.random;
      plan.baseline = allocator.baseline;
      auto options = recipe.allocate;
      options.allocator = allocator.name;
      options.budget = {BudgetKind::kAverageBits, budget};
      try {
        bool learned = false;
        const auto answer = chain_.Solve(options, plan.seed, plan.allocate_ms, learned);
        report.learned += learned ? 1 : 0;
        plan.bits = answer.bits;
        plan.note = answer.note;
        plan.achieved = chain_.Achieved(answer.bits, answer.predicted_loss_rise);
        plan.common_rise = chain_.PredictedLossRise(answer.bits);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kInfeasible) throw;
        plan.failure = error.what();
      }
      report.comparison.plans.push_back(std::move(plan));
    }
  }

  void Measure(Comparison& comparison, std::int64_t& measured) {
    for (const ComparedPlan& plan : comparison.plans) {
      if (plan.failure.empty()) measurements_.try_emplace(plan.bits);
    }
    std::int64_t done = 0;
    for (auto& [bits, measurement] : measurements_) {
      progress_.Info("plan " + std::to_string(++done) + " of " + std::to_string(measurements_.size()));
      bool reused = false;
      measurement = chain_.MeasureBits(bits, reused);
      if (!reused) ++measured;
    }
    for (ComparedPlan& plan : comparison.plans) {
      if (!plan.failure.empty()) continue;
      const auto& measurement = measurements_.at(plan.bits);
      plan.metrics = measurement.verify.metrics;
      plan.choice = measurement.calibration.metrics;
      plan.correction = measurement.correction;
      plan.float_corrected = AgainstCorrected(plan);
    }
  }

  PairedComparison Paired(const std::vector<std::uint8_t>& better, const std::vector<std::uint8_t>& worse) const {
    return ComparePaired(better, worse, chain_.recipe().verify.bootstrap,
                         RandomStream(chain_.recipe().seed, "verify/bootstrap"));
  }

  // Against the float network with the plan's correction, where that is another network.
  std::optional<FloatCorrected> AgainstCorrected(const ComparedPlan& plan) {
    const auto* corrected = chain_.MeasureFloatCorrected(plan.correction, plan.bits);
    if (corrected == nullptr) return std::nullopt;
    return FloatCorrected{corrected->metrics, Paired(corrected->correct, measurements_.at(plan.bits).verify.correct)};
  }

  // The best of a budget is the plan with the highest accuracy, the lower NLL deciding between equals.
  void Judge(Comparison& comparison, const PlanMeasurement& reference) const {
    for (const double budget : chain_.recipe().compare.budgets) {
      const ComparedPlan *best = nullptr, *uniform = nullptr;
      for (const ComparedPlan& plan : comparison.plans) {
        if (plan.budget != budget || !plan.failure.empty()) continue;
        if (plan.allocator == "uniform") uniform = &plan;
        const bool better = best == nullptr || plan.metrics.accuracy > best->metrics.accuracy ||
                            (plan.metrics.accuracy == best->metrics.accuracy && plan.metrics.nll < best->metrics.nll);
        if (better) best = &plan;
      }
      if (best == nullptr) continue;
      const auto best_bits = best->bits;
      const auto uniform_bits = uniform == nullptr ? std::vector<int>{} : uniform->bits;
      for (ComparedPlan& plan : comparison.plans) {
        if (plan.budget != budget || !plan.failure.empty()) continue;
        const auto& measured = measurements_.at(plan.bits);
        const auto& correct = measured.verify.correct;
        plan.drop = Paired(reference.verify.correct, correct);
        plan.choice_drop = Paired(reference.calibration.correct, measured.calibration.correct);
        plan.below_best = Paired(measurements_.at(best_bits).verify.correct, correct);
        plan.tie_with_best = plan.below_best.ci_low <= 0.0;
        if (!uniform_bits.empty()) plan.below_uniform = Paired(measurements_.at(uniform_bits).verify.correct, correct);
      }
    }
  }

  void AddLeads(Comparison& comparison) const {
    for (const double budget : chain_.recipe().compare.budgets) {
      struct Family {
        std::vector<std::string> names;
        std::vector<const std::vector<std::uint8_t>*> correct;
        std::set<std::vector<int>> seen;
      } ours, baselines;
      for (const ComparedPlan& plan : comparison.plans) {
        if (plan.budget != budget || !plan.failure.empty()) continue;
        Family& family = plan.baseline ? baselines : ours;
        if (!family.seen.insert(plan.bits).second) continue;
        family.names.push_back(plan.allocator);
        family.correct.push_back(&measurements_.at(plan.bits).verify.correct);
      }
      if (ours.names.empty() || baselines.names.empty()) continue;
      const FamilyLead lead = CompareFamilies(ours.correct, baselines.correct);
      comparison.leads.push_back({budget, ours.names[lead.first], baselines.names[lead.second], lead.lead, lead.p});
    }
  }

  ShipCandidate Candidate(const ComparedPlan& plan) const {
    const auto& measured = measurements_.at(plan.bits).calibration;
    return {plan.achieved.stored_bytes, &measured.correct, &measured.nll};
  }

  void Recommend(Comparison& comparison, const PlanMeasurement& reference) const {
    const auto& recipe = chain_.recipe();
    const RandomStream stream(recipe.seed, "verify/bootstrap");
    auto& recommended = comparison.recommended;
    recommended.data = reference.calibration.data;
    recommended.samples = static_cast<std::int64_t>(reference.calibration.correct.size());
    recommended.apart = recommended.data != comparison.data;
    recommended.perhaps_known = chain_.CalibrationSource() == "training";
    recommended.tolerance = recipe.compare.tolerance;
    if (recommended.samples < 2) return;  // no choice on one image
    std::vector<ShipCandidate> picks;
    for (const double budget : recipe.compare.budgets) {
      std::vector<ShipCandidate> candidates;
      std::vector<std::size_t> indices;
      for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
        const ComparedPlan& plan = comparison.plans[i];
        const bool chance = plan.random && plan.baseline;  // `random` stands for chance, nobody ships that
        if (plan.budget != budget || !plan.failure.empty() || chance) continue;
        candidates.push_back(Candidate(plan));
        indices.push_back(i);
      }
      const auto pick = SmallestAsGoodAsBest(candidates, recipe.verify.bootstrap, stream);
      if (!pick || recommended.Holds(indices[*pick])) continue;  // a budget may be named twice
      picks.push_back(candidates[*pick]);
      recommended.budgets.push_back(indices[*pick]);
    }
    const auto overall =
        SmallestWithin(picks, reference.calibration.correct, recommended.tolerance, recipe.verify.bootstrap, stream);
    if (overall) recommended.overall = recommended.budgets[*overall];
  }

  [[nodiscard]] Plan PlanOf(const ComparedPlan& plan, const PlanMeasurement& reference) {
    const auto& measured = measurements_.at(plan.bits);
    return chain_.MeasuredPlan(plan.allocator, plan.budget, plan.seed, plan.bits, plan.achieved.predicted_loss_rise,
                               measured,
                               {.data = measured.verify.data,
                                .samples = static_cast<std::int64_t>(measured.verify.correct.size()),
                                .float_model = reference.verify.metrics,
                                .quantized = measured.verify.metrics,
                                .accuracy_drop = plan.drop,
                                .float_corrected = plan.float_corrected});
  }

  [[nodiscard]] std::vector<std::string> Notes(const Comparison& comparison, const PlanMeasurement& reference) {
    std::vector<NamedPlan> plans;
    for (const ComparedPlan& plan : comparison.plans) {
      if (plan.failure.empty()) {
        plans.push_back({fmt::format("{} at {:g} bits", plan.allocator, plan.budget), PlanOf(plan, reference)});
      }
    }
    return OdditiesOfMany(plans, chain_.Facts());
  }

  void WritePlans(Comparison& comparison, const PlanMeasurement& reference, const std::filesystem::path& place) {
    const std::filesystem::path folder = "compare-plans";
    EnsureWritableFolder(place / folder);
    for (ComparedPlan& plan : comparison.plans) {
      if (!plan.failure.empty()) continue;
      const std::string seed = plan.random ? fmt::format("-seed{}", plan.seed) : "";
      plan.file = (folder / fmt::format("{}-{:g}{}.yaml", plan.allocator, plan.budget, seed)).string();
      WriteFileAtomically(place / plan.file, DumpPlan(PlanOf(plan, reference)));
    }
  }

  StageChain chain_;
  ProgressSink& progress_;
  std::vector<const Allocator*> allocators_;
  std::map<std::vector<int>, PlanMeasurement> measurements_;
};

}  // namespace

CompareReport Compare(const RecipeOptions& options, ProgressSink& progress) {
  return Comparer(options, progress).Run();
}

}  // namespace bitplan::pipeline
