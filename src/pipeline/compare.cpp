#include "bitplan/pipeline/compare.h"

#include <fmt/core.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "pipeline/checks.h"
#include "pipeline/compare_figures.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

constexpr int kManySeeds = 5;       // of a network that is measured fast
constexpr double kFastMacs = 1e12;  // of one pass of the images that plans are measured on

// Of every layer's weights, and of its activations where these have widths of their own.
using Widths = std::pair<std::vector<int>, std::vector<int>>;

Widths WidthsOf(const SeedPlan& plan) { return {plan.bits, plan.activation_bits}; }

// Everything that one calibration seed gave.
struct SeedRun {
  std::uint64_t seed = 1;
  PlanMeasurement reference;  // the float network
  std::map<Widths, PlanMeasurement> measurements;
  std::vector<std::optional<Plan>> plans;  // of every row
  // Of every row the float network with the plan's correction; null where that is the float network itself.
  std::vector<const SplitMeasurement*> corrected;
};

class Comparer {
 public:
  Comparer(const RecipeOptions& options, ProgressSink& progress) : chain_(options, progress), progress_(progress) {
    const auto& wanted = chain_.recipe().compare.allocators;
    for (const auto& allocator : Allocators()) {
      const bool named = std::find(wanted.begin(), wanted.end(), allocator.name) != wanted.end();
      const bool known = chain_.recipe().compare.pairs.empty() || ChoosesPairs(allocator);
      if (named && !known) {
        throw Error(ErrorKind::kUsage,
                    fmt::format("compare.allocators: {} does not choose pairs of widths; take exact, "
                                "lagrangian, greedy or random for compare.pairs",
                                allocator.name));
      }
      // Every gain is stated against uniform, so it is always there.
      if ((wanted.empty() && known) || named || IsUniform(allocator.name)) allocators_.push_back(&allocator);
    }
  }

  CompareReport Run() {
    CheckPairs();
    CompareReport report;
    auto& comparison = report.comparison;
    comparison.name = chain_.recipe().name;
    comparison.model = chain_.Model().name;
    comparison.calibration_seeds = Seeds();
    AddRows(comparison);
    for (const auto seed : comparison.calibration_seeds) RunSeed(seed, report);
    for (ComparedPlan& plan : comparison.plans) {
      if (plan.failure.empty()) SumUpSeeds(plan);
    }
    comparison.float_model = MeanFloat();
    const auto rows = Rows(comparison);
    Judge(comparison, rows, chain_.recipe());
    AddLeads(comparison, rows);
    Recommend(comparison, rows, chain_.recipe());
    if (auto fewer = chain_.FewerCalibration(); !fewer.empty()) comparison.notes.push_back(std::move(fewer));
    if (auto fused = chain_.FusedNote(); !fused.empty()) comparison.notes.push_back(std::move(fused));
    chain_.folder().WriteTogether([&](const std::filesystem::path& place) {
      WritePlans(comparison, place);
      report.files = WriteComparison(comparison, place);
      for (auto* file : {&report.files.csv, &report.files.json, &report.files.html}) {
        *file = chain_.folder().path() / file->lexically_relative(place);
      }
    });
    report.stages = chain_.statuses();
    return report;
  }

 private:
  [[nodiscard]] std::vector<std::uint64_t> Seeds() {
    int count = chain_.recipe().compare.calibration_seeds;
    if (count == 0) count = chain_.MacsOfMeasuring() <= kFastMacs ? kManySeeds : 1;
    std::vector<std::uint64_t> seeds;
    for (int s = 0; s < count; ++s) {
      seeds.push_back(chain_.recipe().CalibrationSeed() + static_cast<std::uint64_t>(s));
    }
    return seeds;
  }

  // Those that take a list of choices, in nats.
  static bool ChoosesPairs(const Allocator& allocator) {
    const std::string metric = allocator.metric;
    return !allocator.needs_widths && (metric.empty() || CountsNats(metric));
  }
  static bool IsUniform(const std::string& name) { return name == "uniform"; }

  void CheckPairs() const {
    const Recipe& recipe = chain_.recipe();
    const std::size_t widths = recipe.allocate.activation_bits.size();
    if (recipe.compare.pairs.empty() && widths > 1) {
      throw Error(ErrorKind::kUsage,
                  "allocate.activation_bits has several widths, and average bits say nothing of them: give pairs to "
                  "compare at, as in compare.pairs=[W4A4], or one activation width");
    }
    if (!recipe.compare.pairs.empty() && widths < 2) {
      throw Error(ErrorKind::kUsage,
                  "compare.pairs compares plans of weights and activations: give several widths in "
                  "allocate.activation_bits, as [2, 3, 4, 5, 6, 7, 8]");
    }
    for (const auto& name : recipe.compare.pairs) RequirePair(ParseFormat(name, "compare.pairs"), recipe.allocate);
  }

  [[nodiscard]] std::vector<ComparedBudget> Budgets() {
    const CompareOptions& options = chain_.recipe().compare;
    std::vector<ComparedBudget> budgets;
    for (const std::string& pair : options.pairs) {
      const auto same = [&](const ComparedBudget& known) { return known.pair == pair; };
      if (std::any_of(budgets.begin(), budgets.end(), same)) continue;
      budgets.push_back({chain_.BopsOfPair(ParseFormat(pair, "compare.pairs")), pair});
    }
    if (!budgets.empty()) return budgets;
    for (const double average_bits : options.budgets) budgets.push_back({average_bits});
    return budgets;
  }

  // What a row may spend, and of uniform at a pair the only widths that it may take.
  [[nodiscard]] AllocateOptions OptionsOf(const ComparedPlan& plan) const {
    AllocateOptions options = chain_.recipe().allocate;
    options.allocator = plan.allocator;
    options.budget = plan.budget.IsPair() ? options.budget.WithBops(plan.budget.amount)
                                          : options.budget.WithAverageBits(plan.budget.amount);
    if (plan.budget.IsPair() && IsUniform(plan.allocator)) {
      const Format pair = ParseFormat(plan.budget.pair, "compare.pairs");
      options.bits = {pair.weights};
      options.activation_bits = {pair.activations};
    }
    return options;
  }

  // Several plans of an allocator whose answer depends on the seed, unless every calibration seed brings one.
  void AddRows(Comparison& comparison) {
    const auto& recipe = chain_.recipe();
    for (const ComparedBudget& budget : Budgets()) {
      for (const Allocator* allocator : allocators_) {
        const int seeds = allocator->random && comparison.calibration_seeds.size() == 1 ? recipe.compare.seeds : 1;
        for (int s = 0; s < seeds; ++s) {
          ComparedPlan plan;
          plan.allocator = allocator->name;
          plan.budget = budget;
          plan.seed = recipe.CalibrationSeed() + static_cast<std::uint64_t>(s);
          plan.random = allocator->random;
          plan.baseline = allocator->baseline;
          comparison.plans.push_back(std::move(plan));
        }
      }
    }
    if (comparison.plans.empty()) {
      throw Error(ErrorKind::kUsage, "compare.budgets is empty; give average bits to compare at");
    }
  }

  void RunSeed(std::uint64_t seed, CompareReport& report) {
    auto& comparison = report.comparison;
    const bool first = runs_.empty();
    chain_.UseCalibrationSeed(seed);
    SeedRun& run = runs_.emplace_back();
    run.seed = seed;
    if (comparison.calibration_seeds.size() > 1) {
      progress_.Info(
          fmt::format("calibration seed {}, {} of {}", seed, runs_.size(), comparison.calibration_seeds.size()));
    }
    for (ComparedPlan& plan : comparison.plans) {
      if (plan.failure.empty()) Solve(plan, seed, report);
    }
    const auto& plans = comparison.plans;
    if (std::all_of(plans.begin(), plans.end(), [](const ComparedPlan& plan) { return !plan.failure.empty(); })) {
      throw Error(ErrorKind::kInfeasible,
                  fmt::format("none of compare.{} can be met: {}", plans.front().budget.IsPair() ? "pairs" : "budgets",
                              plans.front().failure));
    }
    run.reference = chain_.MeasureFloat();
    Measure(comparison, run, report.measured);
    if (first) Describe(comparison, run.reference);
    AddNotes(comparison, run);
  }

  void Solve(ComparedPlan& plan, std::uint64_t calibration_seed, CompareReport& report) {
    SeedPlan one;
    one.calibration_seed = calibration_seed;
    const AllocateOptions options = OptionsOf(plan);
    const std::uint64_t seed = AllocatorSeed(plan, calibration_seed);
    try {
      Solution answer;
      if (plan.budget.IsPair()) {
        answer = chain_.SolvePairs(options, seed);
        one.allocate_ms = answer.allocate_ms;
      } else {
        bool learned = false;
        auto allocation = chain_.Solve(options, seed, one.allocate_ms, learned);
        report.learned += learned ? 1 : 0;
        answer.bits = std::move(allocation.bits);
        answer.predicted_loss_rise = allocation.predicted_loss_rise;
        answer.note = std::move(allocation.note);
      }
      one.achieved = chain_.Achieved(answer.bits, answer.predicted_loss_rise);
      one.common_rise = chain_.PredictedLossRise(answer.bits) + chain_.ActivationRise(answer.activation_bits);
      one.bits = std::move(answer.bits);
      one.activation_bits = std::move(answer.activation_bits);
      one.note = std::move(answer.note);
      plan.seeds.push_back(std::move(one));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) throw;
      plan.failure = error.what();
    }
  }

  // The row's own, moved along with the calibration seed.
  [[nodiscard]] std::uint64_t AllocatorSeed(const ComparedPlan& plan, std::uint64_t calibration_seed) const {
    return plan.seed + (calibration_seed - runs_.front().seed);
  }

  void Measure(Comparison& comparison, SeedRun& run, std::int64_t& measured) {
    for (const ComparedPlan& plan : comparison.plans) {
      if (plan.failure.empty()) run.measurements.try_emplace(WidthsOf(plan.seeds.back()));
    }
    std::int64_t done = 0;
    for (auto& [widths, measurement] : run.measurements) {
      progress_.Info("plan " + std::to_string(++done) + " of " + std::to_string(run.measurements.size()));
      bool reused = false;
      measurement = chain_.MeasureBits(widths.first, widths.second, reused);
      if (!reused) ++measured;
    }
    for (ComparedPlan& plan : comparison.plans) {
      auto& made = run.plans.emplace_back();
      auto& corrected = run.corrected.emplace_back(nullptr);
      if (!plan.failure.empty()) continue;
      SeedPlan& one = plan.seeds.back();
      const auto& measurement = run.measurements.at(WidthsOf(one));
      one.metrics = measurement.verify.metrics;
      one.choice = measurement.calibration.metrics;
      one.correction = measurement.correction;
      corrected = chain_.MeasureFloatCorrected(one.correction, one.bits);
      if (corrected != nullptr) one.float_corrected = corrected->metrics;
      made = PlanOf(plan, one, measurement, run.reference, corrected);
      if (!one.activation_bits.empty()) one.bops = Spent(*made, FindResource("bops"));
    }
  }

  [[nodiscard]] Plan PlanOf(const ComparedPlan& plan, const SeedPlan& one, const PlanMeasurement& measurement,
                            const PlanMeasurement& reference, const SplitMeasurement* corrected) {
    const Verification verified = chain_.PairedVerification(reference.verify, measurement.verify, corrected);
    Solution solution;
    solution.bits = one.bits;
    solution.activation_bits = one.activation_bits;
    solution.predicted_loss_rise = one.achieved.predicted_loss_rise;
    return chain_.MeasuredPlan(plan.allocator, OptionsOf(plan).budget, AllocatorSeed(plan, one.calibration_seed),
                               std::move(solution), measurement, verified);
  }

  // What is the same for all seeds, and the layers as the first seed sees them.
  void Describe(Comparison& comparison, const PlanMeasurement& reference) {
    for (const auto& unit : chain_.Table().units) {
      comparison.layers.push_back({unit.name, unit.weights, unit.log_sigma_percentiles});
    }
    comparison.left_in_float = LeftInFloatOf(comparison.plans);
    comparison.data = reference.verify.data;
    comparison.samples = reference.verify.samples();
    if (!reference.verify.metrics.figures.empty()) comparison.score = reference.verify.metrics.figures.front().name;
    auto& recommended = comparison.recommended;
    recommended.data = reference.calibration.data;
    recommended.samples = reference.calibration.samples();
    recommended.apart = recommended.data != comparison.data;
    recommended.perhaps_known = chain_.CalibrationSource() == "training";
    recommended.tolerance = chain_.recipe().compare.tolerance;
  }

  // Every plan leaves the same layers alone: those that allocate.exclude names.
  LeftInFloat LeftInFloatOf(const std::vector<ComparedPlan>& plans) {
    const auto made = [](const ComparedPlan& plan) { return plan.failure.empty(); };
    const auto& bits = std::find_if(plans.begin(), plans.end(), made)->seeds.front().bits;
    std::vector<PlanLayer> layers;
    for (const Layer& layer : chain_.Model().layers) {
      layers.push_back({.name = layer.name, .shape = layer.shape, .bits = bits[layers.size()]});
    }
    return chain_.FloatPart(layers);
  }

  // Over seeds, which differ where plans are measured on calibration images.
  [[nodiscard]] Metrics MeanFloat() const {
    std::vector<Metrics> of_seeds;
    for (const SeedRun& run : runs_) of_seeds.push_back(run.reference.verify.metrics);
    return MeanOf(of_seeds);
  }

  // Those of the first seed that has any.
  void AddNotes(Comparison& comparison, const SeedRun& run) {
    if (!comparison.notes.empty()) return;
    std::vector<NamedPlan> plans;
    for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
      const ComparedPlan& plan = comparison.plans[i];
      if (run.plans[i]) plans.push_back({fmt::format("{} at {}", plan.allocator, plan.budget.Words()), *run.plans[i]});
    }
    for (const auto& note : OdditiesOfMany(plans, chain_.Facts())) {
      const bool first = &run == &runs_.front();
      comparison.notes.push_back(first ? note : fmt::format("calibration seed {}: {}", run.seed, note));
    }
  }

  [[nodiscard]] MeasuredRows Rows(const Comparison& comparison) const {
    MeasuredRows rows;
    rows.calibration = chain_.SharesCalibrationSplit() ? SeedSamples::kShared : SeedSamples::kOwn;
    if (chain_.recipe().verify.split == "calibration") rows.verify = rows.calibration;
    const auto add = [](MeasuredRow& row, const PlanMeasurement& measured) {
      row.verify.push_back(measured.verify.outcomes());
      row.calibration.push_back(measured.calibration.outcomes());
      row.calibration_nll.push_back(&measured.calibration.nll);
    };
    for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
      const ComparedPlan& plan = comparison.plans[i];
      MeasuredRow& row = rows.plans.emplace_back();
      if (!plan.failure.empty()) continue;
      for (std::size_t s = 0; s < runs_.size(); ++s) {
        const SeedRun& run = runs_[s];
        add(row, run.measurements.at(WidthsOf(plan.seeds[s])));
        row.float_corrected.push_back(run.corrected[i] == nullptr ? run.reference.verify.outcomes()
                                                                  : run.corrected[i]->outcomes());
      }
    }
    for (const SeedRun& run : runs_) add(rows.reference, run.reference);
    return rows;
  }

  void WritePlans(Comparison& comparison, const std::filesystem::path& place) {
    const std::filesystem::path folder = "compare-plans";
    EnsureWritableFolder(place / folder);
    for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
      ComparedPlan& plan = comparison.plans[i];
      if (!plan.failure.empty()) continue;
      for (std::size_t s = 0; s < runs_.size(); ++s) {
        SeedPlan& one = plan.seeds[s];
        std::string seed = plan.random && runs_.size() == 1 ? fmt::format("-seed{}", plan.seed) : "";
        if (s > 0) seed = fmt::format("-calibration{}", one.calibration_seed);
        one.file = (folder / fmt::format("{}-{}{}.yaml", plan.allocator, plan.budget.Name(), seed)).string();
        WriteFileAtomically(place / one.file, DumpPlan(*runs_[s].plans[i]));
      }
      plan.file = plan.seeds.front().file;
    }
  }

  StageChain chain_;
  ProgressSink& progress_;
  std::vector<const Allocator*> allocators_;
  std::deque<SeedRun> runs_;  // grows without moving what lies in it
};

}  // namespace

CompareReport Compare(const RecipeOptions& options, ProgressSink& progress) {
  return Comparer(options, progress).Run();
}

}  // namespace bitplan::pipeline
