#include "pipeline/oddities.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "bitplan/core/counted.h"

namespace bitplan::pipeline {
namespace {

constexpr double kBetter = 0.02;         // share of images that quantization may repair
constexpr double kNothing = 1e-9;        // nats; a table below it says nothing
constexpr double kLost = 0.05;           // share of images, lower end of the interval
constexpr double kLittle = 0.01;         // nats; a prediction below it promises no loss
constexpr double kFarAbove = 10.0;       // measured rise, in predicted ones
constexpr double kKnownByHeart = 0.1;    // share of images
constexpr double kStandardErrors = 3.0;  // of the accuracy of guessing

std::string Points(double share) { return fmt::format("{:.1f}", 100.0 * share); }

std::optional<std::string> AtChance(const Verification& verified, int classes) {
  if (classes < 2 || verified.samples < 1) return std::nullopt;
  const double chance = 1.0 / classes;
  const double error = std::sqrt(chance * (1.0 - chance) / static_cast<double>(verified.samples));
  const double guessed = chance + kStandardErrors * error;  // at most, by guessing
  if (guessed >= 1.0 || verified.float_model.accuracy > guessed) return std::nullopt;
  return fmt::format(
      "float accuracy {} % is that of guessing one of {} classes: the network does not see what it was trained on. "
      "Usually data.normalize is missing or another than in training, or the labels count the classes in another order",
      Points(verified.float_model.accuracy), classes);
}

std::optional<std::string> QuantizedBetter(const Verification& verified) {
  const auto& drop = verified.accuracy_drop;
  if (drop.drop > -kBetter || drop.ci_high >= 0.0) return std::nullopt;
  std::string with_same;
  if (const auto& corrected = verified.float_corrected) {
    const bool explains = corrected->accuracy_drop.drop > -kBetter;
    with_same =
        fmt::format(". The float network with the same correction has {} %{}", Points(corrected->metrics.accuracy),
                    explains ? ": judge the plan by the drop against that" : ", so that is not all");
  }
  return fmt::format(
      "the quantized network is {} points better than the float one ({} %): its corrections repaired what was wrong "
      "before{}. Usually data.normalize is missing or another than in training, or the network was saved in training "
      "mode",
      Points(-drop.drop), Points(verified.float_model.accuracy), with_same);
}

double LargestEntry(const AllocationProblem& table) {
  double largest = 0.0;
  for (const auto& row : table.loss_rise) {
    for (const double rise : row) largest = std::max(largest, rise);
  }
  return largest;
}

// Layers of which the table says that no width costs anything, but for those that the plan leaves in float.
std::vector<std::string> SilentLayers(const AllocationProblem& table, const Plan& plan) {
  std::vector<std::string> names;
  for (std::size_t l = 0; l < table.loss_rise.size() && l < table.units.size(); ++l) {
    const auto& row = table.loss_rise[l];
    const bool planned = plan.layers.size() != table.units.size() || plan.layers[l].bits <= 8;
    const bool silent = std::all_of(row.begin(), row.end(), [](double rise) { return rise == 0.0; });
    if (planned && silent) names.push_back(table.units[l].name);
  }
  return names;
}

std::optional<std::string> SameFiles(const OddityFacts& facts) {
  if (facts.shared_files < 1) return std::nullopt;
  const std::string which = facts.shared_files < facts.test_files
                                ? fmt::format("test files that are training files too: {} of {}; ",
                                              Grouped(facts.shared_files), Grouped(facts.test_files))
                                : std::string("the test files are training files too: ");
  return which + "what is measured on them does not say how the plan does on new data";
}

std::optional<std::string> OneClass(const OddityFacts& facts) {
  if (facts.present != 1) return std::nullopt;
  return fmt::format("all training {}s are of one class: they tell little about what the network has to keep apart",
                     facts.sample);
}

std::optional<std::string> FewClasses(const OddityFacts& facts) {
  if (facts.present < 2 || facts.classes < 2 || facts.classes >= facts.outputs) return std::nullopt;
  return fmt::format(
      "the data have {} classes, the network {} outputs: if classes are missing, those behind them may have other "
      "numbers than in training",
      facts.classes, facts.outputs);
}

enum class OddityKind {
  kSameFiles,
  kOneClass,
  kFewClasses,
  kAtChance,
  kBetter,
  kSilentTable,
  kSilentLayers,
  kLost,
  kKnownByHeart
};

bool IsOfPlan(OddityKind kind) { return kind == OddityKind::kBetter || kind == OddityKind::kLost; }

struct Oddity {
  OddityKind kind;
  std::string text;
};

std::vector<Oddity> FindOddities(const Plan& plan, const OddityFacts& facts) {
  std::vector<Oddity> found;
  const auto add = [&](OddityKind kind, std::optional<std::string> text) {
    if (text) found.push_back({kind, *std::move(text)});
  };
  add(OddityKind::kSameFiles, SameFiles(facts));
  add(OddityKind::kOneClass, OneClass(facts));
  add(OddityKind::kFewClasses, FewClasses(facts));
  const bool classes = plan.verified && plan.verified->task.empty();  // what is odd is known of classifiers
  if (classes) {
    add(OddityKind::kAtChance, AtChance(*plan.verified, facts.classes));
    add(OddityKind::kBetter, QuantizedBetter(*plan.verified));
  }
  if (facts.table != nullptr && !facts.table->loss_rise.empty() && LargestEntry(*facts.table) < kNothing) {
    add(OddityKind::kSilentTable,
        fmt::format(
            "the sensitivity table says that no width of any layer costs anything (at most {:.1g} nats), so the "
            "bits mean nothing. Usually the outputs are so large that the softmax is saturated and gradients "
            "vanish, or a layer near the end puts out zeros; try sensitivity.metric: measured",
            LargestEntry(*facts.table)));
  } else if (classes) {
    const double rise = plan.verified->quantized.nll - plan.verified->float_model.nll;
    const double predicted = plan.achieved.predicted_loss_rise;
    if (plan.verified->accuracy_drop.ci_low >= kLost && predicted < kLittle && rise > kFarAbove * predicted) {
      add(OddityKind::kLost,
          fmt::format(
              "{} points are lost where a rise of {:.2g} nats was predicted and {:.2g} measured: the table does "
              "not see what rounding does to this network. Usually its answers are so sure that gradients "
              "vanish; try sensitivity.metric: measured, or more bits",
              Points(plan.verified->accuracy_drop.drop), predicted, rise));
    }
  }
  if (facts.table != nullptr && LargestEntry(*facts.table) >= kNothing) {
    if (const auto names = SilentLayers(*facts.table, plan); !names.empty()) {
      add(OddityKind::kSilentLayers,
          fmt::format("the sensitivity table says that no width of {} costs anything, so these bits mean nothing. "
                      "Usually none of the images that it was measured on reaches the layer, or its weights or outputs "
                      "are zeros; measure on more images (sensitivity.samples, posterior.samples), or pin it with "
                      "allocate.pins",
                      fmt::join(names, ", ")));
    }
  }
  if (plan.verified && facts.calibration_accuracy) {
    const double ahead = *facts.calibration_accuracy - plan.verified->float_model.accuracy;
    if (ahead > kKnownByHeart) {
      add(OddityKind::kKnownByHeart,
          fmt::format("the float network is right on {} % of the calibration {}s and on {} % of {}: it has seen the "
                      "former, so what is chosen on them (corrections, --guard) is chosen on {}s known by heart; {}",
                      Points(*facts.calibration_accuracy), facts.sample, Points(plan.verified->float_model.accuracy),
                      plan.verified->data, facts.sample, facts.unseen));
    }
  }
  return found;
}

}  // namespace

std::vector<std::string> Oddities(const Plan& plan, const OddityFacts& facts) {
  std::vector<std::string> notes;
  for (auto& oddity : FindOddities(plan, facts)) notes.push_back(std::move(oddity.text));
  return notes;
}

std::vector<std::string> OdditiesOfMany(const std::vector<NamedPlan>& plans, const OddityFacts& facts) {
  struct Kept {
    Oddity oddity;
    int more = 0;
  };
  std::vector<Kept> kept;
  for (const auto& [name, plan] : plans) {
    for (auto& oddity : FindOddities(plan, facts)) {
      const auto same = [&](const Kept& known) { return known.oddity.kind == oddity.kind; };
      if (const auto known = std::find_if(kept.begin(), kept.end(), same); known != kept.end()) {
        ++known->more;
        continue;
      }
      if (IsOfPlan(oddity.kind)) oddity.text = name + ": " + oddity.text;
      kept.push_back({std::move(oddity)});
    }
  }
  std::vector<std::string> notes;
  for (auto& [oddity, more] : kept) {
    if (IsOfPlan(oddity.kind) && more > 0) oddity.text += fmt::format(" (and {})", Counted(more, "more plan"));
    notes.push_back(std::move(oddity.text));
  }
  return notes;
}

}  // namespace bitplan::pipeline
