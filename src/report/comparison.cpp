#include "bitplan/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/core/counted.h"
#include "bitplan/core/figures.h"
#include "bitplan/io/files.h"
#include "io/json_text.h"
#include "report/html.h"
#include "report/plots.h"

namespace bitplan {
namespace {

std::string BitsText(const std::vector<int>& bits) { return fmt::format("{}", fmt::join(bits, " ")); }

// Notes hold commas and quotes.
std::string CsvText(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

// Of one calibration seed p is McNemar's, of several Student's. Other tasks than classification have the latter alone.
bool HasP(const ComparedPlan& plan) { return plan.seeds.size() > 1 || plan.metrics.figures.empty(); }
std::string PText(const PairedComparison& paired, const ComparedPlan& plan) {
  return HasP(plan) ? fmt::format("{}", paired.mcnemar_p) : "";
}

nlohmann::ordered_json PairedJson(const PairedComparison& paired, const ComparedPlan& plan) {
  nlohmann::ordered_json json = {{"value", paired.drop}, {"ci95", {paired.ci_low, paired.ci_high}}};
  if (HasP(plan)) json[plan.seeds.size() > 1 ? "p" : "mcnemar_p"] = paired.mcnemar_p;
  return json;
}

nlohmann::ordered_json BudgetJson(const ComparedBudget& budget) {
  return budget.IsPair() ? nlohmann::ordered_json(budget.pair) : nlohmann::ordered_json(budget.amount);
}

nlohmann::ordered_json MetricsJson(const Metrics& metrics) {
  if (metrics.figures.empty()) {
    return {{"accuracy", metrics.accuracy}, {"nll", metrics.nll}, {"brier", metrics.brier}, {"ece", metrics.ece}};
  }
  nlohmann::ordered_json json;
  for (const Figure& figure : metrics.figures) json[figure.name] = figure.value;
  return json;
}

// What every calibration seed gave; nothing of one, which the row itself states.
nlohmann::ordered_json SeedsJson(const ComparedPlan& plan) {
  auto list = nlohmann::ordered_json::array();
  if (plan.seeds.size() < 2) return list;
  for (const SeedPlan& seed : plan.seeds) {
    list.push_back(
        {{"calibration_seed", seed.calibration_seed},
         {"bits", seed.bits},
         {"average_bits", seed.achieved.average_bits},
         {"stored_bytes", seed.achieved.stored_bytes},
         {"predicted_loss_rise", seed.achieved.predicted_loss_rise},
         {"common_loss_rise", seed.common_rise},
         {"batch_norm", seed.correction.batch_norm},
         {"outputs", seed.correction.outputs},
         {"float_corrected", seed.float_corrected ? MetricsJson(*seed.float_corrected) : nlohmann::ordered_json()},
         {"metrics", MetricsJson(seed.metrics)},
         {"choice", MetricsJson(seed.choice)},
         {"plan", seed.file},
         {"note", seed.note}});
    if (!seed.activation_bits.empty())
      list.back().update({{"activation_bits", seed.activation_bits}, {"bops", seed.bops}});
  }
  return list;
}

nlohmann::ordered_json DropCorrectedJson(const ComparedPlan& plan) {
  return plan.float_corrected ? PairedJson(plan.float_corrected->accuracy_drop, plan) : nlohmann::ordered_json();
}

// Four columns, empty where uniform has no plan.
std::string AgainstUniformCsv(const ComparedPlan& plan) {
  if (!plan.below_uniform) return ",,,";
  const PairedComparison& below = *plan.below_uniform;
  return fmt::format("{},{},{},{}", below.drop, below.ci_low, below.ci_high, PText(below, plan));
}

// Five columns, empty where the correction leaves a float network as it is.
std::string CorrectedCsv(const ComparedPlan& plan) {
  if (!plan.float_corrected) return ",,,,";
  const auto& [metrics, drop] = *plan.float_corrected;
  return fmt::format("{},{},{},{},{}", metrics.accuracy, drop.drop, drop.ci_low, drop.ci_high, PText(drop, plan));
}

nlohmann::ordered_json LeadsJson(const std::vector<BudgetLead>& leads) {
  auto list = nlohmann::ordered_json::array();
  for (const BudgetLead& lead : leads) {
    list.push_back({{"budget", BudgetJson(lead.budget)},
                    {"ours", lead.ours},
                    {"baseline", lead.baseline},
                    {"lead", lead.lead},
                    {"p", lead.p}});
  }
  return list;
}

// "overall", "budget" or "".
const char* Pick(const Comparison& comparison, std::size_t plan) {
  return comparison.recommended.overall == plan ? "overall" : comparison.recommended.Holds(plan) ? "budget" : "";
}

nlohmann::ordered_json RecommendationsJson(const Comparison& comparison) {
  const Recommendations& recommended = comparison.recommended;
  const auto entry = [&](std::size_t index) -> nlohmann::ordered_json {
    const ComparedPlan& plan = comparison.plans.at(index);
    return {{"budget", BudgetJson(plan.budget)},
            {"allocator", plan.allocator},
            {"seed", plan.seed},
            {"stored_bytes", plan.achieved.stored_bytes},
            {"network_bytes", plan.achieved.network_bytes},
            {"drop", PairedJson(plan.drop, plan)},
            {"drop_corrected", DropCorrectedJson(plan)},
            {"choice_drop", PairedJson(plan.choice_drop, plan)},
            {"plan", plan.file}};
  };
  auto budgets = nlohmann::ordered_json::array();
  for (const std::size_t index : recommended.budgets) budgets.push_back(entry(index));
  return {{"rule", RecommendationRule(comparison)},
          {"caveat", RecommendationCaveat(comparison)},
          {"data", recommended.data},
          {"samples", recommended.samples},
          {"apart", recommended.apart},
          {"tolerance", recommended.tolerance},
          {"budgets", budgets},
          {"overall", recommended.overall ? entry(*recommended.overall) : nlohmann::ordered_json()}};
}

}  // namespace

std::string ComparedBudget::Name() const { return IsPair() ? pair : fmt::format("{:g}", amount); }
std::string ComparedBudget::Words() const { return IsPair() ? pair : Quantity(amount, "bit"); }

std::vector<ComparedBudget> Comparison::Budgets() const {
  std::vector<ComparedBudget> budgets;
  for (const ComparedPlan& plan : plans) {
    if (std::find(budgets.begin(), budgets.end(), plan.budget) == budgets.end()) budgets.push_back(plan.budget);
  }
  return budgets;
}

bool Recommendations::Holds(std::size_t plan) const {
  return std::find(budgets.begin(), budgets.end(), plan) != budgets.end();
}

std::string ComparedPlan::Name() const {
  return random && seeds.size() < 2 ? fmt::format("{} #{}", allocator, seed) : allocator;
}

std::string IntervalsMeaning(const Comparison& comparison) {
  const auto& seeds = comparison.calibration_seeds;
  if (seeds.size() < 2) return "paired, 95 %, over images, of one calibration set";
  return fmt::format(
      "paired, 95 %, over calibration seeds and images (Student's t; seeds and images crossed where all seeds are "
      "measured on the same images); figures are means of {} calibration seeds, {} to {}, of which each gives other "
      "calibration data",
      seeds.size(), seeds.front(), seeds.back());
}

std::vector<const ComparedPlan*> PlansOfCorrectedFloats(const Comparison& comparison) {
  std::vector<const ComparedPlan*> firsts;
  for (const ComparedPlan& plan : comparison.plans) {
    if (!plan.float_corrected) continue;
    const auto same = [&](const ComparedPlan* known) {
      return known->correction.batch_norm == plan.correction.batch_norm &&
             known->correction.outputs == plan.correction.outputs &&
             known->float_corrected->metrics.nll == plan.float_corrected->metrics.nll;
    };
    if (std::none_of(firsts.begin(), firsts.end(), same)) firsts.push_back(&plan);
  }
  return firsts;
}

std::string CorrectedFloatText(const ComparedPlan& plan) {
  const Metrics& metrics = plan.float_corrected->metrics;
  return fmt::format("{}, outputs {}: {:.2f} %, NLL {:.4f}", plan.correction.batch_norm, plan.correction.outputs,
                     100.0 * metrics.accuracy, metrics.nll);
}

std::string RecommendationRule(const Comparison& comparison) {
  const std::string score = FigureTitle(comparison.score);
  return fmt::format(
      "At a budget: of the plans not shown to be worse than the one of least NLL on {3} (paired 95 % intervals of NLL "
      "and {0} hold 0) the one of fewest bytes. Over all: the smallest of these that costs at most {1} of {0} there, "
      "at "
      "the upper end of the paired 95 % interval against float.{2}",
      score, Quantity(100.0 * comparison.recommended.tolerance, "point"),
      comparison.calibration_seeds.size() < 2
          ? ""
          : " Means and intervals are over calibration seeds; the plan is that of the first.",
      comparison.recommended.data);
}

std::string RecommendationCaveat(const Comparison& comparison) {
  const Recommendations& recommended = comparison.recommended;
  std::string text =
      recommended.apart
          ? fmt::format(
                "The choice has not seen the images of {} that plans are measured on, so the drops stated for what it "
                "chose are fair.",
                comparison.data)
          : "The choice was made on the same images as the measurement, so the drops stated for what it chose are too "
            "favourable.";
  if (recommended.perhaps_known) {
    text +=
        fmt::format(" The model came from a file: if it was trained on the images of {}, drops there are too small.",
                    recommended.data);
  }
  return text;
}

std::string ComparisonCsv(const Comparison& comparison) {
  std::string header =
      "budget,allocator,seed,average_bits,stored_bytes,network_bytes,accuracy,nll,drop,drop_low,drop_high,drop_p,"
      "float_corrected,drop_corrected,drop_corrected_low,drop_corrected_high,drop_corrected_p,below_uniform,"
      "below_uniform_low,below_uniform_high,below_uniform_p,below_best,below_best_low,below_best_high,predicted_rise,"
      "common_rise,allocate_ms,batch_norm,outputs,bits,choice_accuracy,choice_nll,choice_drop,choice_drop_low,"
      "choice_drop_high,recommended,plan,calibration_seeds,accuracy_sd,bops,activation_bits,note\n";
  for (const auto* column : {"accuracy", "choice_accuracy", "accuracy_sd"}) {
    const auto at = header.find(fmt::format(",{},", column));
    header.replace(header.find("accuracy", at), std::string("accuracy").size(), comparison.score);
  }
  const auto commas = static_cast<std::size_t>(std::count(header.begin(), header.end(), ','));
  std::string text = header;
  for (std::size_t i = 0; i < comparison.plans.size(); ++i) {
    const ComparedPlan& plan = comparison.plans[i];
    if (!plan.failure.empty()) {
      text += fmt::format("{},{},{}{}{}\n", plan.budget.Name(), plan.allocator, plan.seed, std::string(commas - 2, ','),
                          CsvText(plan.failure));
      continue;
    }
    text += fmt::format(
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{:.3f},{},{},{},{},{},{},{},{},{},{},{},{},{"
        "},{},{}\n",
        plan.budget.Name(), plan.allocator, plan.seed, plan.achieved.average_bits, plan.achieved.stored_bytes,
        plan.achieved.network_bytes, plan.metrics.accuracy, plan.metrics.nll, plan.drop.drop, plan.drop.ci_low,
        plan.drop.ci_high, PText(plan.drop, plan), CorrectedCsv(plan), AgainstUniformCsv(plan), plan.below_best.drop,
        plan.below_best.ci_low, plan.below_best.ci_high, plan.achieved.predicted_loss_rise, plan.common_rise,
        plan.allocate_ms, plan.correction.batch_norm, plan.correction.outputs, BitsText(plan.bits),
        plan.choice.accuracy, plan.choice.nll, plan.choice_drop.drop, plan.choice_drop.ci_low, plan.choice_drop.ci_high,
        Pick(comparison, i), CsvText(plan.file), std::max<std::size_t>(1, plan.seeds.size()), plan.accuracy_spread,
        plan.activation_bits.empty() ? "" : fmt::format("{:.0f}", plan.bops), BitsText(plan.activation_bits),
        CsvText(plan.note));
  }
  return text;
}

std::string ComparisonJson(const Comparison& comparison) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array(), plans = nlohmann::ordered_json::array();
  for (const LayerSummary& layer : comparison.layers)
    layers.push_back({{"name", layer.name}, {"weights", layer.weights}});
  for (const ComparedPlan& plan : comparison.plans) {
    nlohmann::ordered_json entry = {{"budget", BudgetJson(plan.budget)},
                                    {"allocator", plan.allocator},
                                    {"seed", plan.seed},
                                    {"baseline", plan.baseline}};
    if (!plan.failure.empty()) {
      entry["failure"] = plan.failure;
      plans.push_back(std::move(entry));
      continue;
    }
    entry.update(
        {{"bits", plan.bits},
         {"average_bits", plan.achieved.average_bits},
         {"stored_bytes", plan.achieved.stored_bytes},
         {"network_bytes", plan.achieved.network_bytes},
         {"predicted_loss_rise", plan.achieved.predicted_loss_rise},
         {"common_loss_rise", plan.common_rise},
         {"allocate_ms", plan.allocate_ms},
         {"batch_norm", plan.correction.batch_norm},
         {"outputs", plan.correction.outputs},
         {"metrics", MetricsJson(plan.metrics)},
         {comparison.score + "_sd", plan.accuracy_spread},
         {"drop", PairedJson(plan.drop, plan)},
         {"float_corrected",
          plan.float_corrected ? MetricsJson(plan.float_corrected->metrics) : nlohmann::ordered_json()},
         {"drop_corrected", DropCorrectedJson(plan)},
         {"below_uniform", plan.below_uniform ? PairedJson(*plan.below_uniform, plan) : nlohmann::ordered_json()},
         {"below_best", PairedJson(plan.below_best, plan)},
         {"tie_with_best", plan.tie_with_best},
         {"choice", MetricsJson(plan.choice)},
         {"choice_drop", PairedJson(plan.choice_drop, plan)},
         {"recommended", Pick(comparison, plans.size())},
         {"plan", plan.file},
         {"seeds", SeedsJson(plan)},
         {"note", plan.note}});
    if (!plan.activation_bits.empty()) entry.update({{"activation_bits", plan.activation_bits}, {"bops", plan.bops}});
    plans.push_back(std::move(entry));
  }
  const LeftInFloat& left = comparison.left_in_float;
  nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
  for (const FloatWeights& tensor : left.tensors) {
    tensors.push_back({{"name", tensor.name}, {"shape", tensor.shape}, {"reason", tensor.reason}});
  }
  const nlohmann::ordered_json json = {
      {"name", comparison.name},
      {"model", comparison.model},
      {"data", comparison.data},
      {"samples", comparison.samples},
      {"score", comparison.score},
      {"float", MetricsJson(comparison.float_model)},
      {"calibration_seeds", comparison.calibration_seeds},
      {"intervals", IntervalsMeaning(comparison)},
      {"layers", layers},
      {"left_in_float", {{"weights", left.weights}, {"share", left.share}, {"tensors", tensors}}},
      {"plans", plans},
      {"leads", LeadsJson(comparison.leads)},
      {"recommended", RecommendationsJson(comparison)},
      {"notes", comparison.notes}};
  return JsonText(json, 1) + "\n";
}

ReportFiles WriteComparison(const Comparison& comparison, const std::filesystem::path& folder) {
  ReportFiles files{folder / "compare.csv", folder / "compare.json", folder / "report.html"};
  WriteFileAtomically(files.csv, ComparisonCsv(comparison));
  WriteFileAtomically(files.json, ComparisonJson(comparison));
  const auto figures = DrawFigures(comparison, folder / "plots");
  files.plots =
      std::all_of(figures.begin(), figures.end(), [](const DrawnFigure& figure) { return !figure.svg.empty(); });
  WriteFileAtomically(files.html, ComparisonHtml(comparison, figures));
  return files;
}

}  // namespace bitplan
