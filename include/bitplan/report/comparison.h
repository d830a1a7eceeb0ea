// Many plans for one network, measured on the same samples, and what can be written about them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/correction.h"
#include "bitplan/core/plan.h"

namespace bitplan {

// What a row was allowed: average bits per weight, or the bit operations of one pair of widths for everything.
struct ComparedBudget {
  double amount = 0.0;
  std::string pair{};  // "W4A4"; empty: `amount` is average bits

  [[nodiscard]] bool IsPair() const { return !pair.empty(); }
  [[nodiscard]] std::string Name() const;   // "1.5", "W4A4"
  [[nodiscard]] std::string Words() const;  // "1.5 bits", "W4A4"
  friend bool operator==(const ComparedBudget&, const ComparedBudget&) = default;
};

// What an allocator gave at a budget with one calibration seed.
struct SeedPlan {
  std::uint64_t calibration_seed = 1;
  std::vector<int> bits, activation_bits;  // of every layer; the second empty where the recipe has one width for all
  PlanAchieved achieved;                   // the predicted rise is the allocator's own
  double common_rise = 0.0;                // the rise that the recipe's sensitivity metric predicts, nats per sample
  double bops = 0.0;                       // bit operations of one input, where activations have widths of their own
  double allocate_ms = 0.0;
  std::string note;
  CorrectionMethod correction;
  std::optional<Metrics> float_corrected{};  // of the float network with that correction, where it changes it
  Metrics metrics;
  Metrics choice;    // on the images by which plans are recommended
  std::string file;  // the plan as `verify --plan` takes it, relative to the output folder
};

// One allocator at one budget. Of several calibration seeds the metrics are means, the differences hold for other seeds
// and images (CompareOverSeeds), and the plan is that of the first.
struct ComparedPlan {
  std::string allocator;
  ComparedBudget budget;
  std::uint64_t seed = 1;
  bool random = false;  // the allocator's answer depends on the seed
  bool baseline = false;
  std::string failure;  // why there is no plan (the budget cannot be met); everything below is empty then
  std::vector<int> bits, activation_bits;
  PlanAchieved achieved;     // the predicted rise is the allocator's own
  double common_rise = 0.0;  // the rise that the recipe's sensitivity metric predicts, nats per sample
  double bops = 0.0;
  double allocate_ms = 0.0;
  std::string note;
  CorrectionMethod correction;
  Metrics metrics;
  PairedComparison drop;  // against the float network
  // Against the float network with `correction`; empty where that leaves a float network as it is.
  std::optional<FloatCorrected> float_corrected;
  // accuracy(uniform) - accuracy(this) at the same budget; negative: better than it. Empty where uniform has no plan.
  std::optional<PairedComparison> below_uniform;
  PairedComparison below_best;    // accuracy(best of this budget) - accuracy(this)
  bool tie_with_best = false;     // below_best does not exclude 0
  Metrics choice;                 // on the images by which plans are recommended
  PairedComparison choice_drop;   // against the float network, on these images
  std::string file;               // the plan as `verify --plan` takes it, relative to the output folder
  std::vector<SeedPlan> seeds{};  // in the order of Comparison::calibration_seeds
  double accuracy_spread = 0.0;   // standard deviation of the accuracy over seeds; 0 of one

  // "exact"; of the plans of several seeds of an allocator "random #2".
  [[nodiscard]] std::string Name() const;
};

// The best of our allocators against the best baseline at one budget; see CompareFamilies. Plans with the same widths
// count once.
struct BudgetLead {
  ComparedBudget budget;
  std::string ours, baseline;  // allocators
  double lead = 0.0, p = 1.0;
};

struct LayerSummary {
  std::string name;
  std::int64_t weights = 0;
  std::vector<double> log2_sigma;  // percentiles 0..100, or empty
};

// What a careful person would ship, as indices into Comparison::plans.
struct Recommendations {
  std::string data;  // the images that chose, "mnist/calibration"
  std::int64_t samples = 0;
  bool apart = true;                   // these are other images than those that the comparison measures on
  bool perhaps_known = false;          // training images of a model from a file: whoever trained it may have used them
  double tolerance = 0.0;              // accuracy that the plan over all budgets may cost, a share
  std::vector<std::size_t> budgets;    // one for each budget that can be met, in the order of the plans
  std::optional<std::size_t> overall;  // empty: none is within the tolerance for sure

  [[nodiscard]] bool Holds(std::size_t plan) const;
};

struct Comparison {
  std::string name;  // of the recipe
  std::string model;
  std::string data;  // "mnist/test"
  std::int64_t samples = 0;
  std::string score = "accuracy";  // what the networks are compared by: a name of FigureKinds
  Metrics float_model;
  std::vector<std::uint64_t> calibration_seeds;  // that every plan was made with; none: one, not stated
  std::vector<LayerSummary> layers;
  LeftInFloat left_in_float;        // by every plan
  std::vector<ComparedPlan> plans;  // by budget, then in the order of the allocators
  std::vector<BudgetLead> leads;    // of the budgets where both sides have a plan
  Recommendations recommended;
  // Of the plans, each once, in their order.
  [[nodiscard]] std::vector<ComparedBudget> Budgets() const;

  std::vector<std::string> notes;  // figures that can hardly be right, and what they usually mean
};

// What the intervals hold for: other images, or other calibration seeds and images.
[[nodiscard]] std::string IntervalsMeaning(const Comparison& comparison);

// The first plan of every correction that changes the float network; empty when none does.
[[nodiscard]] std::vector<const ComparedPlan*> PlansOfCorrectedFloats(const Comparison& comparison);

// "re-estimate, outputs fit: 88.35 %, NLL 0.3612": what a plan's correction makes of the float network.
[[nodiscard]] std::string CorrectedFloatText(const ComparedPlan& plan);

// How plans are recommended, and what that means for their measured drops; one sentence each.
[[nodiscard]] std::string RecommendationRule(const Comparison& comparison);
[[nodiscard]] std::string RecommendationCaveat(const Comparison& comparison);

struct ReportFiles {
  std::filesystem::path csv, json, html;
  bool plots = false;  // false: gnuplot was not found; the report has tables only
};

// compare.csv, compare.json, report.html (self-contained) and plots/ (data, gnuplot script and SVG of every figure) in
// `folder`. Error(kIo).
ReportFiles WriteComparison(const Comparison& comparison, const std::filesystem::path& folder);

[[nodiscard]] std::string ComparisonCsv(const Comparison& comparison);
[[nodiscard]] std::string ComparisonJson(const Comparison& comparison);

}  // namespace bitplan
