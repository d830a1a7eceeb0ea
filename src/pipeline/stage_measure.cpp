// What a plan does to the network: corrections, and figures on the images of a split.
#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/models/at_once.h"
#include "bitplan/ptq/activations.h"
#include "bitplan/ptq/compensate.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/ptq/learn_rounding.h"
#include "bitplan/ptq/refine_ranges.h"
#include "bitplan/verify/evaluate.h"
#include "pipeline/checks.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"
#include "ptq/integer_biases.h"

namespace bitplan::pipeline {
namespace {

constexpr int kFloatActivation = 32;

void Round(Metrics& metrics) {
  for (double* value : {&metrics.accuracy, &metrics.nll, &metrics.brier, &metrics.ece}) *value = Rounded(*value, 6);
  for (Figure& figure : metrics.figures) figure.value = Rounded(figure.value, 6);
}

void Round(PairedComparison& drop) {
  for (double* value : {&drop.drop, &drop.ci_low, &drop.ci_high}) *value = Rounded(*value, 6);
  drop.mcnemar_p = RoundedToDigits(drop.mcnemar_p, 6);
}

// Images of one step of learned rounding. All values between layers are kept for the way back, so fewer where images
// are large; it depends on the network alone, as the codes do.
int LearnedBatch(const bitplan::Network& network) {
  constexpr std::int64_t kMost = 64, kLayersKept = 16;
  return static_cast<int>(std::clamp<std::int64_t>(ImagesAtOnce(network) / kLayersKept, 1, kMost));
}

}  // namespace

std::optional<double> StageChain::CalibrationAccuracy() {
  constexpr std::int64_t kEnough = 1000;  // images
  const bool classes = recipe_.data.task.empty();
  if (!classes || Data().calibration.unlabelled || CalibrationSource() != "training" || Data().calibration.size() == 0)
    return std::nullopt;
  const auto some = Data().calibration.Head(std::min(kEnough, Data().calibration.size()));
  const auto logits =
      PredictLogits(Model().module, some, normalizer_, recipe_.verify.batch, "calibration, float", progress_);
  return EvaluateLogits(logits, some.labels).metrics.accuracy;
}

std::vector<int> StageChain::ActivationBits(const std::vector<int>& bits) {
  const auto& layers = Model().layers;
  const auto& asked = recipe_.allocate.activation_bits;
  std::vector<int> activations = followed_activations_;
  if (activations.empty()) RequireOneActivationWidth(recipe_, "a plan of widths of weights alone");
  if (activations.empty()) activations.assign(bits.size(), asked.empty() ? kFloatActivation : asked.front());
  for (std::size_t l = 0; l < bits.size(); ++l) {
    // A layer left alone, one that looks rows up by numbers, and one that computes with states in float.
    if (bits[l] > 8 || !layers[l].rounds_input()) activations[l] = kFloatActivation;
  }
  return activations;
}

Correction StageChain::Correct(AppliedPlan& applied, const std::vector<int>& bits, const QuantizerOptions& options,
                               const Dataset& calibration) {
  if (!float_side_) float_side_.emplace(Model(), CorrectionImages(), several_plans_);
  QuantizeActivations(Model(), applied, ActivationBits(bits), options.activation_range, float_side_->images(),
                      progress_, options.activation_sums == "rounded");
  if (options.rounding == "compensated") {
    CompensateRounding(Model(), applied, bits, options, *float_side_, progress_);
  }
  auto correction = CorrectNetwork(Model(), applied, options, *float_side_, calibration, normalizer_, progress_);
  if (!several_plans_) float_side_.reset();
  if (options.range_sweeps > 0) Refine(applied, options);
  if (options.learned_steps > 0) correction.learned = Learn(applied, options);
  RoundBiases(Model(), applied);
  return correction;
}

Dataset StageChain::TeachingImages(std::int64_t count) {
  const auto& train = Data().train;
  const auto order = RandomStream(recipe_.CalibrationSeed(), "pipeline/learned-rounding").Permutation(train.size());
  count = std::min(count, train.size());
  return train.Select(torch::tensor(std::vector<std::int64_t>(order.begin(), order.begin() + count)));
}

void StageChain::Refine(AppliedPlan& applied, const QuantizerOptions& options) {
  const auto refined = RefineRanges(Model(), applied, options.range_sweeps, TeachingImages(options.correction_samples),
                                    normalizer_, LearnedBatch(Model()), recipe_.CalibrationSeed(), progress_);
  if (refined.held_out == 0) {
    progress_.Info("ranges of activations: nothing to refine, or fewer than 8 training images");
    return;
  }
  progress_.Info(fmt::format("ranges of {} activations: the divergence on {} held-out {}s {} {:.4f} to {:.4f} nats{}",
                             refined.ranges, refined.held_out, Data().train.RowWord(),
                             refined.kept ? "fell from" : "went from", refined.before, refined.after,
                             refined.kept ? "" : ", so they are left as they were"));
}

std::optional<LearnedRounding> StageChain::Learn(AppliedPlan& applied, const QuantizerOptions& options) {
  const auto learned = LearnRounding(Model(), applied, options, TeachingImages(options.learned_samples), normalizer_,
                                     LearnedBatch(Model()), recipe_.CalibrationSeed(), progress_);
  if (learned.codes == 0) {
    progress_.Info("learned rounding: nothing to learn, or fewer than 8 training images");
    return std::nullopt;
  }
  const std::string change =
      fmt::format("the divergence on {} held-out {}s {} {:.4f} to {:.4f} nats", learned.held_out,
                  Data().train.RowWord(), learned.kept ? "fell from" : "went from", learned.before, learned.after);
  const double moved = 100.0 * static_cast<double>(learned.moved) / static_cast<double>(learned.codes);
  progress_.Info(learned.kept
                     ? fmt::format("learned rounding: {}; scales, biases and norms moved, and {:.2f} % of the codes",
                                   change, moved)
                     : fmt::format("learned rounding: {}, so the network is left as it was", change));
  return learned;
}

torch::jit::Module StageChain::Built(const Plan& plan) {
  Follow(plan);
  return KeptOrMade(plan).module;
}

Verification StageChain::Compare(const Plan& plan, const Plan& other) {
  const auto module = Built(plan);
  return Measure(Built(other), module);
}

int StageChain::Batch() {
  return static_cast<int>(std::min<std::int64_t>(recipe_.verify.batch, ImagesAtOnce(Model())));
}

const Dataset& StageChain::VerifySplit() { return recipe_.verify.split == "test" ? Data().test : Data().calibration; }

Verification StageChain::Measure(const torch::jit::Module& reference, const torch::jit::Module& quantized,
                                 const std::optional<torch::jit::Module>& corrected) {
  auto options = recipe_.verify;
  options.batch = Batch();
  return RoundedVerification(
      VerifyPaired(reference, quantized, VerifySplit(), normalizer_, options, recipe_.seed, progress_, corrected));
}

Verification StageChain::PairedVerification(const SplitMeasurement& reference, const SplitMeasurement& quantized,
                                            const SplitMeasurement* corrected) const {
  const auto drop_from = [&](const SplitMeasurement& other) {
    return ComparePaired(other.outcomes(), quantized.outcomes(), recipe_.verify.bootstrap,
                         RandomStream(recipe_.seed, "verify/bootstrap"));
  };
  Verification verified{.data = quantized.data,
                        .samples = quantized.samples(),
                        .float_model = reference.metrics,
                        .quantized = quantized.metrics,
                        .accuracy_drop = drop_from(reference),
                        .task = recipe_.data.task};
  if (corrected != nullptr) verified.float_corrected = FloatCorrected{corrected->metrics, drop_from(*corrected)};
  return RoundedVerification(std::move(verified));
}

Verification StageChain::RoundedVerification(Verification result) const {
  Round(result.float_model);
  Round(result.quantized);
  Round(result.accuracy_drop);
  if (result.float_corrected) {
    Round(result.float_corrected->metrics);
    Round(result.float_corrected->accuracy_drop);
  }
  return result;
}

double StageChain::GuardNll(const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
                            const QuantizerOptions& options) {
  const auto& calibration = Data().calibration;
  const auto half = calibration.size() / 2;
  auto applied = Applied(bits, choices, options);
  (void)Correct(applied, bits, options, calibration.Head(half));
  const Dataset judged = calibration.Select(torch::arange(half, calibration.size()));
  return Rounded(Evaluate(applied.module, judged, normalizer_, Batch(), "guard", progress_).metrics.nll, 6);
}

void StageChain::Guard(Plan& plan) {
  RequireOneActivationWidth(recipe_, "--guard");
  if (Data().calibration.size() < 2) {
    throw Error(ErrorKind::kUsage, "--guard needs calibration images; set data.calibration");
  }
  auto allocate = asked_.allocate;
  allocate.allocator = "uniform";
  allocate.budget = plan.budget;
  if (!recipe_.quantizer.exportable.empty()) {  // the plan may keep to a format that the recipe does not name
    const auto held = HeldWidths(recipe_.quantizer.limits, recipe_.quantizer.grid);
    std::erase_if(allocate.bits, [&](int bits) { return std::find(held.begin(), held.end(), bits) == held.end(); });
    for (const auto& [name, reason] : not_held_) allocate.exclude.push_back(name);
  }
  const auto uniform = bitplan::Allocate(Table(), allocate, recipe_.CalibrationSeed()).bits;
  // Where the recipe leaves a correction to "auto", both networks get their own choice, on images that do not judge.
  auto options = recipe_.quantizer;
  if (asked_.quantizer.batch_norm == "auto") options.batch_norm = "auto";
  if (asked_.quantizer.output_correction == "auto") options.output_correction = "auto";
  PlanGuard guard{.data = Data().calibration.name,
                  .plan_nll = GuardNll(BitsOf(plan), ChoicesOf(plan), options),
                  .uniform_nll = GuardNll(uniform, {}, options),
                  .replaced = ""};
  if (guard.uniform_nll < guard.plan_nll) {
    guard.replaced = plan.allocator;
    plan.allocator = allocate.allocator;
    plan.allocator_options.clear();
    plan.achieved = Achieved(uniform, PredictedLossRise(uniform));
    plan.drop.reset();
    if (plan.exportable) plan.exportable->predicted_loss_rise = plan.exportable->unrestricted_loss_rise = std::nullopt;
    for (std::size_t i = 0; i < uniform.size(); ++i) {
      plan.layers[i].bits = uniform[i];
      plan.layers[i].confidence = -1.0;
    }
    StateResources(plan);
    plan.left_in_float = FloatPart(plan.layers);
    SetChoices(plan, Quantized(uniform, {}).choices);
    recipe_.quantizer.batch_norm = options.batch_norm;
    recipe_.quantizer.output_correction = options.output_correction;
    SetCorrection(plan, {options.batch_norm, options.output_correction});
  }
  plan.guard = std::move(guard);
}

SplitMeasurement StageChain::Evaluated(const torch::jit::Module& module, const Dataset& split,
                                       const std::string& label) {
  auto evaluation = Evaluate(module, split, normalizer_, Batch(), label, progress_);
  SplitMeasurement measured{split.name,
                            std::move(evaluation.metrics),
                            std::move(evaluation.correct),
                            std::move(evaluation.nll),
                            std::move(evaluation.gained),
                            std::move(evaluation.possible)};
  for (float& value : measured.nll) value = static_cast<float>(RoundedToDigits(value, 4));  // as the file keeps them
  return measured;
}

PlanMeasurement StageChain::EvaluatedOnBoth(const torch::jit::Module& module, const std::string& what) {
  const auto& verify = VerifySplit();
  const auto& calibration = Data().calibration;
  PlanMeasurement measurement;
  measurement.verify = Evaluated(module, verify, "verify " + what);
  measurement.calibration =
      &verify == &calibration ? measurement.verify : Evaluated(module, calibration, "calibration images, " + what);
  return measurement;
}

PlanMeasurement StageChain::MeasureFloat() {
  const auto& module = Model().module;
  PlanMeasurement measured;
  if (recipe_.verify.split == "test") {
    if (!float_verify_) float_verify_ = Evaluated(module, Data().test, "verify float model");
    measured.verify = *float_verify_;
    measured.calibration = Evaluated(module, Data().calibration, "calibration images, float model");
  } else {
    measured.calibration = measured.verify = Evaluated(module, Data().calibration, "verify float model");
  }
  if (CalibrationSource() == "training" && !Data().calibration.unlabelled && recipe_.data.task.empty())
    calibration_accuracy_ = measured.calibration.metrics.accuracy;
  return measured;
}

Plan StageChain::MeasuredPlan(const std::string& name, const Budget& budget, std::uint64_t seed, Solution solution,
                              const PlanMeasurement& measurement, const Verification& verified) {
  const auto kept = recipe_.allocate;
  recipe_.allocate.allocator = name;
  recipe_.allocate.budget = budget;
  solution.choices = measurement.choices;
  Plan plan = Draft(solution);
  recipe_.allocate = kept;
  plan.seed = seed;
  SetCorrection(plan, measurement.correction);
  plan.verified = RoundedVerification(verified);
  return plan;
}

AppliedPlan StageChain::AppliedOfMany(const Plan& plan, const Dataset& calibration, PlanMeasurement& measured) {
  several_plans_ = true;
  const auto bits = BitsOf(plan);
  auto applied = Applied(bits, plan.layers.front().grid == "auto" ? std::vector<LevelChoice>() : ChoicesOf(plan),
                         recipe_.quantizer);
  measured.correction = Correct(applied, bits, recipe_.quantizer, calibration).chosen;
  measured.choices = applied.choices;
  return applied;
}

PlanMeasurement StageChain::MeasureBits(const std::vector<int>& bits, const std::vector<int>& activation_bits,
                                        bool& reused) {
  if (!activation_bits.empty()) followed_activations_ = activation_bits;
  Plan plan;
  plan.quantizer = recipe_.quantizer;
  for (const int width : bits) plan.layers.push_back({.bits = width, .grid = "auto", .range = "auto"});
  const auto activations = ActivationBits(bits);
  for (std::size_t l = 0; l < bits.size(); ++l) plan.layers[l].activation_bits = activations[l];
  return MeasureDraft(plan, reused);
}

PlanMeasurement StageChain::MeasureDraft(const Plan& plan, bool& reused) {
  Sha256 hash;
  hash.Update("measure/2").Update(ApplyInput(plan)).Update(DataHash(true)).Update(Section("verify"));
  return Kept(hash.Hex(), reused, [&] {
    PlanMeasurement choice;
    followed_activations_ = ActivationBitsOf(plan);
    const auto applied = AppliedOfMany(plan, Data().calibration, choice);
    auto measured = EvaluatedOnBoth(applied.module, "plan");
    measured.correction = choice.correction;
    measured.choices = choice.choices;
    return measured;
  });
}

PlanMeasurement StageChain::MeasureOnCalibration(const Plan& plan, std::int64_t choosing, bool& reused) {
  const auto input = Sha256OfParts(
      {"calibration-measure/1", ApplyInput(plan), DataHash(false), std::to_string(choosing), Section("verify")});
  return Kept(input, reused, [&] {
    PlanMeasurement measured;
    followed_activations_ = ActivationBitsOf(plan);
    const auto applied = AppliedOfMany(plan, Data().calibration.Head(choosing), measured);
    measured.verify = measured.calibration = Evaluated(applied.module, Data().calibration, "calibration images, plan");
    return measured;
  });
}

SplitMeasurement StageChain::FloatOnCalibration() {
  bool reused = false;
  const auto input =
      Sha256OfParts({"calibration-float/1", ModelInput(), DataHash(false), CalibrationSeed(), Section("verify")});
  return Kept(input, reused,
              [&] {
                PlanMeasurement measured;
                measured.verify = measured.calibration =
                    Evaluated(Model().module, Data().calibration, "calibration images, float model");
                return measured;
              })
      .calibration;
}

}  // namespace bitplan::pipeline
