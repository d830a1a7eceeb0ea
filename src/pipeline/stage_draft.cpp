// From bits to a plan that is not measured yet.
#include <torch/version.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/ptq/correction.h"
#include "pipeline/data_hash.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

constexpr std::int64_t kFloatBytes = 4;

}  // namespace

void StageChain::Follow(const Plan& plan) {
  const bool states = plan.calibration && plan.calibration->seed;
  UseCalibrationSeed(states ? *plan.calibration->seed : asked_.CalibrationSeed());
  FollowQuantizer(plan.quantizer, recipe_.quantizer);
  FollowExportable(plan);
  evidence_.reset();
  float_side_.reset();
  quantized_.reset();  // its key is widths and grids, and another quantizer may be followed now
  followed_activations_ = ActivationBitsOf(plan);
  auto& widths = recipe_.allocate.bits;
  for (const auto& layer : plan.layers) {
    if (layer.bits <= 8 && std::find(widths.begin(), widths.end(), layer.bits) == widths.end()) {
      widths.push_back(layer.bits);
    }
  }
  if (recipe_.quantizer.range != "posterior") return;
  // Plans of earlier versions state the hash of the estimate itself.
  const auto& record = PosteriorRecord();
  if (plan.posterior_sha256 != record.input && plan.posterior_sha256 != record.content) {
    throw Error(ErrorKind::kData, "the plan's quantizer ranges come from another posterior (sha256 " +
                                      plan.posterior_sha256.substr(0, 12) + ", here " + record.input.substr(0, 12) +
                                      "); use the recipe that made the plan");
  }
}

void StageChain::Rebase(Plan& plan) {
  if (asked_.quantizer.batch_norm == "auto") plan.quantizer.batch_norm = "auto";
  if (asked_.quantizer.output_correction == "auto") plan.quantizer.output_correction = "auto";
  StateCalibrationSeed(plan);
  if (plan.quantizer.range == "posterior") {
    plan.posterior_estimator = recipe_.posterior.estimator;
    plan.posterior_sha256 = PosteriorRecord().input;
  }
  plan.provenance = {.bitplan = BITPLAN_VERSION, .libtorch = TORCH_VERSION, .recipe_sha256 = recipe_sha256_};
}

double StageChain::PredictedLossRise(const std::vector<int>& bits, const std::string& allocator) {
  const auto& known = Allocators();
  const auto named = std::find_if(known.begin(), known.end(), [&](const auto& a) { return allocator == a.name; });
  const auto& table = named == known.end() ? Table() : Table(MetricOf(*named));
  double rise = 0.0;
  for (std::size_t unit = 0; unit < bits.size(); ++unit) {
    const auto width = std::find(table.widths.begin(), table.widths.end(), bits[unit]);
    if (width != table.widths.end()) rise += table.loss_rise[unit][width - table.widths.begin()];
  }
  return rise;  // a layer left alone (16 or 32 bits) adds nothing
}

PlanAchieved StageChain::Achieved(const std::vector<int>& bits, double predicted_loss_rise) {
  const auto& units = Table().units;
  std::int64_t weight_bits = 0, stored_bits = 0, weights = 0, left_alone = 0;
  for (std::size_t unit = 0; unit < bits.size(); ++unit) {
    if (bits[unit] > 8) {  // left in float: outside the plan's average and size
      left_alone += units[unit].weights;
      continue;
    }
    weight_bits += units[unit].weights * bits[unit];
    stored_bits += StoredBits(units[unit], bits[unit]);
    weights += units[unit].weights;
  }
  const std::int64_t bytes = (stored_bits + 7) / 8;
  const std::int64_t others = kFloatBytes * left_alone + Model().bytes_in_float();
  PlanAchieved achieved;
  achieved.network_bytes = bytes + others;
  achieved.network_compression = Rounded(static_cast<double>(kFloatBytes * weights + others) /
                                             static_cast<double>(std::max<std::int64_t>(1, achieved.network_bytes)),
                                         4);
  if (weights == 0) return achieved;
  const auto count = static_cast<double>(weights);
  achieved.average_bits = Rounded(static_cast<double>(weight_bits) / count, 6);
  achieved.average_bits_with_overhead = Rounded(static_cast<double>(stored_bits) / count, 6);
  achieved.stored_bytes = bytes;
  achieved.compression = Rounded(static_cast<double>(kFloatBytes) * count / static_cast<double>(bytes), 4);
  achieved.predicted_loss_rise = RoundedToDigits(predicted_loss_rise, 6);
  return achieved;
}

void StageChain::SetStoredBytes(Plan& plan, std::int64_t bytes) {
  auto& achieved = plan.achieved;
  std::int64_t weights = 0;
  for (const auto& layer : plan.layers) weights += layer.bits > 8 ? 0 : layer.weights();
  if (weights == 0) return;
  const auto others = achieved.network_bytes - achieved.stored_bytes;
  achieved.stored_bytes = bytes;
  achieved.network_bytes = bytes + others;
  const auto in_float = kFloatBytes * weights;
  achieved.average_bits_with_overhead = Rounded(8.0 * static_cast<double>(bytes) / static_cast<double>(weights), 6);
  achieved.compression = Rounded(static_cast<double>(in_float) / static_cast<double>(bytes), 4);
  achieved.network_compression =
      Rounded(static_cast<double>(in_float + others) / static_cast<double>(achieved.network_bytes), 4);
}

LeftInFloat StageChain::FloatPart(const std::vector<PlanLayer>& layers) {
  const auto& network = Model();
  LeftInFloat left;
  for (const auto& layer : layers) {
    const auto reason = not_held_.find(layer.name);
    if (layer.bits > 8) {
      left.tensors.push_back({layer.name, layer.shape, reason == not_held_.end() ? "left alone" : reason->second});
    }
  }
  for (const auto& tensor : network.left_in_float) {
    if (tensor.weight) left.tensors.push_back({tensor.parameter, tensor.shape, tensor.reason});
  }
  for (const auto& tensor : left.tensors) left.weights += tensor.weights();
  const std::int64_t all = network.quantizable_weights() + network.weights_in_float();
  left.share = Rounded(static_cast<double>(left.weights) / static_cast<double>(all), 6);
  return left;
}

void StageChain::RefreshChoices(Plan& plan) { SetChoices(plan, Quantized(BitsOf(plan), ChoicesOf(plan)).choices); }

Plan StageChain::Draft(const Solution& solution) {
  Plan plan;
  const auto& network = Model();
  plan.model = {.name = network.name,
                .sha256 = ModelRecord().content,
                .weights = network.quantizable_weights(),
                .note = ModelNote()};
  plan.allocator = recipe_.allocate.allocator;
  if (plan.allocator == "quantile-inform") {
    plan.allocator_options = {{"mode", recipe_.allocate.mode},
                              {"quantile", nlohmann::json(recipe_.allocate.quantile).dump()}};
  }
  if (plan.allocator == "quantile-inform-rank") {
    plan.allocator_options = {{"quantile", nlohmann::json(recipe_.allocate.quantile).dump()}};
  }
  if (plan.allocator == "random-bits") {
    const auto& options = recipe_.allocate.random_bits;
    plan.allocator_options = {{"estimator", options.estimator}, {"steps", std::to_string(options.steps)}};
  }
  plan.seed = recipe_.CalibrationSeed();
  if (NeedsPosterior()) {
    plan.posterior_estimator = recipe_.posterior.estimator;
    // Of what it was estimated from: the last digits of the estimate depend on the number of threads.
    plan.posterior_sha256 = PosteriorRecord().input;
  }
  plan.quantizer = recipe_.quantizer;
  plan.quantizer.centring = CentringName(CentringOf(recipe_.quantizer));
  if (!plan.quantizer.exportable.empty()) plan.exportable = restriction_;
  plan.budget = recipe_.allocate.budget;
  plan.achieved = Achieved(solution.bits, solution.predicted_loss_rise);
  plan.achieved.optimality_gap = solution.optimality_gap < 0.0 ? -1.0 : RoundedToDigits(solution.optimality_gap, 6);
  if (!solution.activation_bits.empty()) followed_activations_ = solution.activation_bits;
  const auto activations = ActivationBits(solution.bits);
  for (std::size_t i = 0; i < network.layers.size(); ++i) {
    const auto& layer = network.layers[i];
    plan.layers.push_back({.name = layer.name,
                           .kind = layer.kind,
                           .shape = layer.shape,
                           .macs = layer.macs,
                           .bits = solution.bits[i],
                           .grid = solution.choices[i].grid,
                           .range = solution.choices[i].range,
                           .activation_bits = activations[i],
                           .confidence = solution.confidence.empty() ? -1.0 : Rounded(solution.confidence[i], 4)});
  }
  StateResources(plan);
  plan.left_in_float = FloatPart(plan.layers);
  const auto facts = nlohmann::json::parse(ModelRecord().facts);
  if (facts.contains("calibration")) {
    plan.calibration = PlanCalibration{facts.at("calibration"), CalibrationSource()};
    StateCalibrationSeed(plan);
  }
  plan.provenance = {.bitplan = BITPLAN_VERSION, .libtorch = TORCH_VERSION, .recipe_sha256 = recipe_sha256_};
  return plan;
}

std::string StageChain::CalibrationSource() const {
  if (!recipe_.data.calibration_images.empty()) return "file";
  if (recipe_.data.calibration_from == "test") return "test";
  return recipe_.model.is_trained() ? "training" : "split-off";
}

OddityFacts StageChain::Facts() {
  const auto facts = nlohmann::json::parse(ModelRecord().facts);
  OddityFacts known{.classes = facts.value("classes", 0),
                    .table = &Table(),
                    .calibration_accuracy = calibration_accuracy_,
                    .outputs = facts.value("outputs", std::int64_t{0}),
                    .present = facts.value("present", std::int64_t{0}),
                    .sample = SampleWord()};
  const std::string& name = recipe_.data.name;
  if (name != "npy") known.unseen = "data.calibration_from: test takes them off the test " + known.sample + "s";
  if (name == "npy" || name == "folder" || name == "csv") {
    std::tie(known.test_files, known.shared_files) = SharedFiles(recipe_.data, data_folders_);
  }
  if (known.present == 0) {  // the training images have no labels, but the test images may
    const auto named = std::ssize(ClassNames());
    if (named > 1) known.present = known.classes = static_cast<int>(named);
  }
  return known;
}

std::string StageChain::SampleWord() const { return recipe_.data.name == "csv" ? "row" : "image"; }

std::vector<std::string> StageChain::ClassNames() {
  if (!recipe_.data.task.empty()) return {};
  if (data_) return data_->train.names ? data_->train.names->classes : std::vector<std::string>();
  const auto& source = FindDatasetSource(recipe_.data.name);
  return source.class_names == nullptr ? std::vector<std::string>() : source.class_names(recipe_.data, data_folders_);
}

std::int64_t StageChain::CalibrationAsked() { return FewerCalibration().empty() ? 0 : recipe_.data.calibration; }

std::string StageChain::FewerCalibration() {
  const auto facts = nlohmann::json::parse(ModelRecord().facts);
  return pipeline::FewerCalibration(recipe_.data, facts.value("calibration", std::int64_t{0}), SampleWord());
}

}  // namespace bitplan::pipeline
