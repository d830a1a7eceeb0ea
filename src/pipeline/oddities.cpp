#include "pipeline/oddities.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

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
  if (verified.float_model.accuracy > chance + kStandardErrors * error) return std::nullopt;
  return fmt::format(
      "float accuracy {} % is that of guessing one of {} classes: the network does not see what it was trained on. "
      "Usually data.normalize is missing or another than in training, or the labels count the classes in another order",
      Points(verified.float_model.accuracy), classes);
}

std::optional<std::string> QuantizedBetter(const Verification& verified) {
  const auto& drop = verified.accuracy_drop;
  if (drop.drop > -kBetter || drop.ci_high >= 0.0) return std::nullopt;
  return fmt::format(
      "the quantized network is {} points better than the float one ({} %): its corrections repaired what was wrong "
      "before. Usually data.normalize is missing or another than in training, or the network was saved in training "
      "mode",
      Points(-drop.drop), Points(verified.float_model.accuracy));
}

double LargestEntry(const AllocationProblem& table) {
  double largest = 0.0;
  for (const auto& row : table.loss_rise) {
    for (const double rise : row) largest = std::max(largest, rise);
  }
  return largest;
}

}  // namespace

std::vector<std::string> Oddities(const Plan& plan, const OddityFacts& facts) {
  std::vector<std::string> notes;
  const auto add = [&](std::optional<std::string> note) {
    if (note) notes.push_back(*std::move(note));
  };
  if (plan.verified) {
    add(AtChance(*plan.verified, facts.classes));
    add(QuantizedBetter(*plan.verified));
  }
  if (facts.table != nullptr && !facts.table->loss_rise.empty() && LargestEntry(*facts.table) < kNothing) {
    add(fmt::format(
        "the sensitivity table says that no width of any layer costs anything (at most {:.1g} nats), so the "
        "bits mean nothing. Usually the outputs are so large that the softmax is saturated and gradients "
        "vanish, or a layer near the end puts out zeros; try sensitivity.metric: measured",
        LargestEntry(*facts.table)));
  } else if (plan.verified) {
    const double rise = plan.verified->quantized.nll - plan.verified->float_model.nll;
    const double predicted = plan.achieved.predicted_loss_rise;
    if (plan.verified->accuracy_drop.ci_low >= kLost && predicted < kLittle && rise > kFarAbove * predicted) {
      add(fmt::format(
          "{} points are lost where a rise of {:.2g} nats was predicted and {:.2g} measured: the table does "
          "not see what rounding does to this network. Usually its answers are so sure that gradients "
          "vanish; try sensitivity.metric: measured, or more bits",
          Points(plan.verified->accuracy_drop.drop), predicted, rise));
    }
  }
  if (plan.verified && facts.calibration_accuracy) {
    const double ahead = *facts.calibration_accuracy - plan.verified->float_model.accuracy;
    if (ahead > kKnownByHeart) {
      add(fmt::format(
          "the float network is right on {} % of the calibration images and on {} % of {}: it has seen the "
          "former, so what is chosen on them (corrections, --guard) is chosen on images known by heart. "
          "Give data.calibration_images that it has not seen",
          Points(*facts.calibration_accuracy), Points(plan.verified->float_model.accuracy), plan.verified->data));
    }
  }
  return notes;
}

}  // namespace bitplan::pipeline
