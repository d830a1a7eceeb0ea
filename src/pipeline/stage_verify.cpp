// The lower half of the chain: from bits to a measured plan.
#include <torch/version.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

#include "bitplan/core/error.h"
#include "bitplan/core/random.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/recipe.h"
#include "bitplan/models/at_once.h"
#include "bitplan/verify/compensate.h"
#include "bitplan/verify/correction.h"
#include "bitplan/verify/evaluate.h"
#include "io/json_text.h"
#include "io/yaml_text.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

constexpr std::int64_t kFloatBytes = 4;

double Rounded(double value, int decimals) {
  const double factor = std::pow(10.0, decimals);
  return std::round(value * factor) / factor + 0.0;  // no negative zero
}

double RoundedToDigits(double value, int digits) {
  if (value == 0.0 || !std::isfinite(value)) return value;
  char text[64];
  std::snprintf(text, sizeof text, "%.*e", digits - 1, value);
  return std::strtod(text, nullptr);
}

void RoundMetrics(Metrics& metrics) {
  for (double* value : {&metrics.accuracy, &metrics.nll, &metrics.brier, &metrics.ece}) *value = Rounded(*value, 6);
}

std::vector<int> BitsOf(const Plan& plan) {
  std::vector<int> bits;
  for (const auto& layer : plan.layers) bits.push_back(layer.bits);
  return bits;
}

std::vector<LevelChoice> ChoicesOf(const Plan& plan) {
  std::vector<LevelChoice> choices;
  for (const auto& layer : plan.layers) choices.push_back({layer.grid, layer.range});
  return choices;
}

void SetChoices(Plan& plan, const std::vector<LevelChoice>& choices) {
  for (std::size_t i = 0; i < choices.size(); ++i) {
    plan.layers[i].grid = choices[i].grid;
    plan.layers[i].range = choices[i].range;
  }
}

void SetCorrection(Plan& plan, const CorrectionMethod& method) {
  plan.quantizer.batch_norm = method.batch_norm;
  plan.quantizer.output_correction = method.outputs;
}

// What of a quantizer a plan states.
void FollowQuantizer(const QuantizerOptions& plan, QuantizerOptions& options) {
  options.scheme = plan.scheme;
  options.granularity = plan.granularity;
  options.range = plan.range;
  options.rounding = plan.rounding;
  options.centring = plan.centring;
  options.batch_norm = plan.batch_norm;
  options.output_correction = plan.output_correction;
}

nlohmann::json ToJson(const Metrics& metrics) { return {metrics.accuracy, metrics.nll, metrics.brier, metrics.ece}; }

Metrics MetricsFrom(const nlohmann::json& json) { return {json.at(0), json.at(1), json.at(2), json.at(3)}; }

// How figures stand in the manifest.
std::string FactsOf(const Verification& verified) {
  const auto& drop = verified.accuracy_drop;
  const nlohmann::json facts = {{"data", verified.data},
                                {"samples", verified.samples},
                                {"float", ToJson(verified.float_model)},
                                {"quantized", ToJson(verified.quantized)},
                                {"drop", {drop.drop, drop.ci_low, drop.ci_high, drop.mcnemar_p}}};
  return JsonText(facts);
}

Verification VerificationOf(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  const auto& drop = facts.at("drop");
  return {.data = facts.at("data"),
          .samples = facts.at("samples"),
          .float_model = MetricsFrom(facts.at("float")),
          .quantized = MetricsFrom(facts.at("quantized")),
          .accuracy_drop = {drop.at(0), drop.at(1), drop.at(2), drop.at(3)}};
}

// How a correction, and the float network's accuracy on calibration images, stand in the manifest.
std::string FactsOf(const Correction& correction, std::optional<double> calibration_accuracy) {
  auto candidates = nlohmann::json::array();
  for (const auto& [method, nll] : correction.candidates)
    candidates.push_back({method.batch_norm, method.outputs, nll});
  nlohmann::json facts = {
      {"batch_norm", correction.chosen.batch_norm}, {"outputs", correction.chosen.outputs}, {"candidates", candidates}};
  if (calibration_accuracy) facts["calibration_accuracy"] = *calibration_accuracy;
  return JsonText(facts);
}

std::optional<double> CalibrationAccuracyOf(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  if (!facts.contains("calibration_accuracy")) return std::nullopt;
  return facts.at("calibration_accuracy").get<double>();
}

Correction CorrectionOf(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  Correction correction{{facts.at("batch_norm"), facts.at("outputs")}, {}};
  for (const auto& candidate : facts.at("candidates")) {
    correction.candidates.push_back({{candidate.at(0), candidate.at(1)}, candidate.at(2)});
  }
  return correction;
}

nlohmann::ordered_json SplitJson(const SplitMeasurement& measured) {
  std::string correct, nll;
  for (const auto hit : measured.correct) correct += hit != 0 ? '1' : '0';
  for (const float value : measured.nll) nll += (nll.empty() ? "" : " ") + nlohmann::json(value).dump();
  const auto& metrics = measured.metrics;
  return {{"data", measured.data},   {"accuracy", metrics.accuracy}, {"nll", metrics.nll}, {"brier", metrics.brier},
          {"ece", metrics.ece},      {"correct", correct},           {"nll_of_images", nll}};
}

SplitMeasurement SplitOf(const nlohmann::json& json) {
  SplitMeasurement measured{json.at("data"),
                            {json.at("accuracy"), json.at("nll"), json.at("brier"), json.at("ece")},
                            {},
                            {}};
  for (const char c : json.at("correct").get<std::string>()) measured.correct.push_back(c == '1' ? 1 : 0);
  const auto nll = json.at("nll_of_images").get<std::string>();
  for (const char* at = nll.c_str(); *at != '\0';) {
    char* end = nullptr;
    measured.nll.push_back(std::strtof(at, &end));
    if (end == at) throw std::invalid_argument("no number");
    at = *end == ' ' ? end + 1 : end;
  }
  if (measured.nll.size() != measured.correct.size()) throw std::invalid_argument("a measurement is cut short");
  return measured;
}

std::string DumpMeasurement(const PlanMeasurement& measurement, const std::string& input) {
  auto choices = nlohmann::ordered_json::array();
  for (const auto& [grid, range] : measurement.choices) choices.push_back({grid, range});
  const nlohmann::ordered_json json = {{"input", input},
                                       {"batch_norm", measurement.correction.batch_norm},
                                       {"outputs", measurement.correction.outputs},
                                       {"choices", choices},
                                       {"verify", SplitJson(measurement.verify)},
                                       {"calibration", SplitJson(measurement.calibration)}};
  return JsonText(json, 1) + "\n";
}

// Nothing when the file is for something else or was damaged: then the plan is measured again.
std::optional<PlanMeasurement> ParseMeasurement(const std::string& text, const std::string& input) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("input", "") != input) return std::nullopt;
  try {
    PlanMeasurement measurement{.verify = SplitOf(json.at("verify")),
                                .calibration = SplitOf(json.at("calibration")),
                                .correction = {json.at("batch_norm"), json.at("outputs")}};
    for (const auto& choice : json.at("choices")) measurement.choices.push_back({choice.at(0), choice.at(1)});
    return measurement;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

std::string BitsAndChoices(const Plan& plan) {
  std::string text;
  for (const auto& layer : plan.layers) {
    text += layer.name + " " + std::to_string(layer.bits) + " " + layer.grid + " " + layer.range + "\n";
  }
  return text;
}

}  // namespace

void StageChain::Follow(const Plan& plan) {
  FollowQuantizer(plan.quantizer, recipe_.quantizer);
  evidence_.reset();
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
  if (plan.quantizer.range == "posterior") {
    plan.posterior_estimator = recipe_.posterior.estimator;
    plan.posterior_sha256 = PosteriorRecord().input;
  }
  plan.provenance = {.bitplan = BITPLAN_VERSION, .libtorch = TORCH_VERSION, .recipe_sha256 = recipe_sha256_};
}

double StageChain::PredictedLossRise(const std::vector<int>& bits, const std::string& allocator) {
  const auto& known = Allocators();
  const auto named = std::find_if(known.begin(), known.end(), [&](const auto& a) { return allocator == a.name; });
  const std::string metric = named == known.end() ? "" : named->metric;
  const auto& table = metric.empty() ? Table() : Table(metric);
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

LeftInFloat StageChain::FloatPart(const std::vector<PlanLayer>& layers) {
  const auto& network = Model();
  LeftInFloat left;
  for (const auto& layer : layers) {
    if (layer.bits > 8) left.tensors.push_back({layer.name, layer.shape, "left alone"});
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
  plan.model = {.name = network.name, .sha256 = ModelRecord().content, .weights = network.quantizable_weights()};
  plan.allocator = recipe_.allocate.allocator;
  if (plan.allocator == "quantile-inform") {
    plan.allocator_options = {{"mode", recipe_.allocate.mode},
                              {"quantile", nlohmann::json(recipe_.allocate.quantile).dump()}};
  }
  if (plan.allocator == "random-bits") {
    const auto& options = recipe_.allocate.random_bits;
    plan.allocator_options = {{"estimator", options.estimator}, {"steps", std::to_string(options.steps)}};
  }
  plan.seed = recipe_.seed;
  if (NeedsPosterior()) {
    plan.posterior_estimator = recipe_.posterior.estimator;
    // Of what it was estimated from: the last digits of the estimate depend on the number of threads.
    plan.posterior_sha256 = PosteriorRecord().input;
  }
  plan.quantizer = recipe_.quantizer;
  plan.quantizer.centring = CentringName(CentringOf(recipe_.quantizer));
  plan.budget = recipe_.allocate.budget;
  plan.achieved = Achieved(solution.bits, solution.predicted_loss_rise);
  plan.achieved.optimality_gap = solution.optimality_gap < 0.0 ? -1.0 : RoundedToDigits(solution.optimality_gap, 6);
  for (std::size_t i = 0; i < network.layers.size(); ++i) {
    const auto& layer = network.layers[i];
    plan.layers.push_back({.name = layer.name,
                           .kind = layer.kind,
                           .shape = layer.shape,
                           .macs = layer.macs,
                           .bits = solution.bits[i],
                           .grid = solution.choices[i].grid,
                           .range = solution.choices[i].range,
                           .confidence = solution.confidence.empty() ? -1.0 : Rounded(solution.confidence[i], 4)});
  }
  plan.left_in_float = FloatPart(plan.layers);
  const auto facts = nlohmann::json::parse(ModelRecord().facts);
  if (facts.contains("calibration")) plan.calibration = PlanCalibration{facts.at("calibration"), CalibrationSource()};
  plan.provenance = {.bitplan = BITPLAN_VERSION, .libtorch = TORCH_VERSION, .recipe_sha256 = recipe_sha256_};
  return plan;
}

std::string StageChain::CalibrationSource() const {
  if (!recipe_.data.calibration_images.empty()) return "file";
  if (recipe_.data.calibration_from == "test") return "test";
  return recipe_.model.file.empty() ? "split-off" : "training";
}

std::optional<double> StageChain::CalibrationAccuracy() {
  constexpr std::int64_t kEnough = 1000;  // images
  if (CalibrationSource() != "training" || Data().calibration.size() == 0) return std::nullopt;
  const auto some = Data().calibration.Head(std::min(kEnough, Data().calibration.size()));
  const auto logits =
      PredictLogits(Model().module, some, normalizer_, recipe_.verify.batch, "calibration, float", progress_);
  return EvaluateLogits(logits, some.labels).metrics.accuracy;
}

OddityFacts StageChain::Facts() {
  const auto facts = nlohmann::json::parse(ModelRecord().facts);
  return {.classes = facts.value("classes", 0), .table = &Table(), .calibration_accuracy = calibration_accuracy_};
}

double StageChain::GuardNll(const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
                            const QuantizerOptions& options) {
  const auto& calibration = Data().calibration;
  const auto half = calibration.size() / 2;
  auto applied = ApplyBits(Model(), bits, choices, options, Evidence());
  (void)Correct(applied, bits, options, calibration.Head(half));
  const Dataset judged = calibration.Select(torch::arange(half, calibration.size()));
  const auto logits = PredictLogits(applied.module, judged, normalizer_, Batch(), "guard", progress_);
  return Rounded(EvaluateLogits(logits, judged.labels).metrics.nll, 6);
}

void StageChain::Guard(Plan& plan) {
  if (Data().calibration.size() < 2) {
    throw Error(ErrorKind::kUsage, "--guard needs calibration images; set data.calibration");
  }
  auto allocate = asked_.allocate;
  allocate.allocator = "uniform";
  allocate.budget = plan.budget;
  const auto uniform = bitplan::Allocate(Table(), allocate, recipe_.seed).bits;
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
    for (std::size_t i = 0; i < uniform.size(); ++i) {
      plan.layers[i].bits = uniform[i];
      plan.layers[i].confidence = -1.0;
    }
    plan.left_in_float = FloatPart(plan.layers);
    SetChoices(plan, Quantized(uniform, {}).choices);
    recipe_.quantizer.batch_norm = options.batch_norm;
    recipe_.quantizer.output_correction = options.output_correction;
    SetCorrection(plan, {options.batch_norm, options.output_correction});
  }
  plan.guard = std::move(guard);
}

Correction StageChain::Correct(AppliedPlan& applied, const std::vector<int>& bits, const QuantizerOptions& options,
                               const Dataset& calibration) {
  const auto images = CorrectionImages();
  if (options.rounding == "compensated") {
    CompensateRounding(Model(), applied, bits, options, images, progress_);
  }
  return CorrectNetwork(Model(), applied.module, options, images, calibration, normalizer_, progress_);
}

torch::jit::Module StageChain::Built(const Plan& plan) {
  Follow(plan);
  auto applied = Quantized(BitsOf(plan), ChoicesOf(plan));
  quantized_.reset();
  (void)Correct(applied, BitsOf(plan));
  return applied.module;
}

Verification StageChain::Compare(const Plan& plan, const Plan& other) {
  const auto module = Built(plan);
  return Measure(Built(other), module);
}

int StageChain::Batch() {
  return static_cast<int>(std::min<std::int64_t>(recipe_.verify.batch, ImagesAtOnce(Model())));
}

const Dataset& StageChain::VerifySplit() { return recipe_.verify.split == "test" ? Data().test : Data().calibration; }

Verification StageChain::Measure(const torch::jit::Module& reference, const torch::jit::Module& quantized) {
  auto options = recipe_.verify;
  options.batch = Batch();
  return RoundedVerification(
      VerifyPaired(reference, quantized, VerifySplit(), normalizer_, options, recipe_.seed, progress_));
}

Verification StageChain::RoundedVerification(Verification result) const {
  RoundMetrics(result.float_model);
  RoundMetrics(result.quantized);
  auto& drop = result.accuracy_drop;
  for (double* value : {&drop.drop, &drop.ci_low, &drop.ci_high}) *value = Rounded(*value, 6);
  drop.mcnemar_p = RoundedToDigits(drop.mcnemar_p, 6);
  return result;
}

SplitMeasurement StageChain::Evaluated(const torch::jit::Module& module, const Dataset& split,
                                       const std::string& label) {
  const auto evaluation =
      EvaluateLogits(PredictLogits(module, split, normalizer_, Batch(), label, progress_), split.labels);
  SplitMeasurement measured{split.name, evaluation.metrics, evaluation.correct, evaluation.nll};
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
  auto measured = EvaluatedOnBoth(Model().module, "float model");
  if (CalibrationSource() == "training") calibration_accuracy_ = measured.calibration.metrics.accuracy;
  return measured;
}

Plan StageChain::MeasuredPlan(const std::string& name, double average_bits, std::uint64_t seed,
                              const std::vector<int>& bits, double predicted_loss_rise,
                              const PlanMeasurement& measurement, const PlanMeasurement& reference,
                              const PairedComparison& drop) {
  const auto kept = recipe_.allocate;
  recipe_.allocate.allocator = name;
  recipe_.allocate.budget = {BudgetKind::kAverageBits, average_bits};
  Solution solution;
  solution.bits = bits;
  solution.choices = measurement.choices;
  solution.predicted_loss_rise = predicted_loss_rise;
  Plan plan = Draft(solution);
  recipe_.allocate = kept;
  plan.seed = seed;
  SetCorrection(plan, measurement.correction);
  const auto& verify = measurement.verify;
  plan.verified = RoundedVerification({.data = verify.data,
                                       .samples = static_cast<std::int64_t>(verify.correct.size()),
                                       .float_model = reference.verify.metrics,
                                       .quantized = verify.metrics,
                                       .accuracy_drop = drop});
  return plan;
}

PlanMeasurement StageChain::MeasureBits(const std::vector<int>& bits, bool& reused) {
  Plan plan;
  plan.quantizer = recipe_.quantizer;
  for (const int width : bits) plan.layers.push_back({.bits = width, .grid = "auto", .range = "auto"});
  Sha256 hash;
  hash.Update("measure/2").Update(ApplyInput(plan)).Update(DataHash(true)).Update(Section("verify"));
  const auto input = hash.Hex();
  const auto file = folder_.File("compare/" + input.substr(0, 24) + ".json");
  reused = false;
  if (std::filesystem::exists(file)) {
    if (const auto saved = ParseMeasurement(ReadFile(file, "measurement"), input)) {
      reused = true;
      return *saved;
    }
  }
  auto applied = ApplyBits(Model(), bits, {}, recipe_.quantizer, Evidence());
  const auto correction = Correct(applied, bits);
  auto measurement = EvaluatedOnBoth(applied.module, "plan");
  measurement.correction = correction.chosen;
  measurement.choices = applied.choices;
  EnsureWritableFolder(file.parent_path());
  WriteFileAtomically(file, DumpMeasurement(measurement, input));
  return measurement;
}

// The plan says how it is quantized, so `verify` of a plan that `run` made finds what `run` did.
std::string StageChain::ApplyInput(const Plan& plan) {
  Recipe recipe = recipe_;
  FollowQuantizer(plan.quantizer, recipe.quantizer);
  recipe.quantizer.centring = CentringName(CentringOf(recipe.quantizer));
  return Sha256OfParts({"apply/8", ModelRecord().content, DataHash(false), DumpRecipeSection(recipe, "quantizer"),
                        BitsAndChoices(plan), Seed(), RangeEvidenceHash()});
}

std::string StageChain::VerifyInput(const StageRecord& apply) {
  return Sha256OfParts({"verify/2", ModelRecord().content, apply.content, DataHash(true), Section("verify"), Seed()});
}

std::string StageChain::PlaceOf(const Plan& plan, bool edited) {
  Plan asked = plan;
  // As the recipe has it: what "auto" chose is known only later.
  SetCorrection(asked, {asked_.quantizer.batch_norm, asked_.quantizer.output_correction});
  std::string options;
  for (const auto& [key, value] : plan.allocator_options) options += key + "=" + value + " ";
  const auto maker = edited ? std::string("edited") : plan.allocator;
  const auto budget = BudgetName(plan.budget.kind) + ("-" + FormatBudgetValue(plan.budget));
  const auto key = Sha256OfParts({"place/1", ApplyInput(asked), maker, options, std::to_string(plan.seed), budget});
  auto name = budget + "-" + maker + "-" + key.substr(0, 8);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && std::string_view("._-").find(c) == std::string_view::npos) {
      c = '_';
    }
  }
  return "plans/" + name;
}

void StageChain::WritePlan(const Plan& plan, const std::string& place, bool edited) {
  const auto text = DumpPlan(plan);
  folder_.Write(place + "/plan.yaml", text);
  if (edited) {
    WriteFileAtomically(folder_.File("plan.yaml"), text);
  } else {
    folder_.Write("plan.yaml", text);
  }
}

void StageChain::PlaceNetwork(StageRecord& apply, const std::string& network) {
  if (apply.files.front() != network) {  // another plan has the same network
    folder_.Link(network, apply.files.front());
    folder_.Complete("apply", apply, {network});
    apply.files = {network};
  }
  folder_.Link("quantized.pt", network);
}

bool StageChain::PutInPlace(Plan& plan) {
  const auto place = PlaceOf(plan, false);
  auto apply = folder_.Find("apply", ApplyInput(plan));
  if (apply) {
    PlaceNetwork(*apply, place + "/quantized.pt");
    if (const auto verify = folder_.Find("verify", VerifyInput(*apply))) {
      SetCorrection(plan, CorrectionOf(apply->facts).chosen);
      calibration_accuracy_ = CalibrationAccuracyOf(apply->facts);
      plan.verified = VerificationOf(verify->facts);
    }
  }
  WritePlan(plan, place, false);
  return apply.has_value();
}

std::vector<CorrectionCandidate> StageChain::VerifyInFolder(Plan& plan, bool edited) {
  const auto place = PlaceOf(plan, edited), network = place + "/quantized.pt";
  plan.verified.reset();
  auto apply = Ensure("apply", ApplyInput(plan), {network}, [&]() -> StageRecord {
    WritePlan(plan, place, edited);
    auto& applied = Quantized(BitsOf(plan), ChoicesOf(plan));
    const auto correction = Correct(applied, BitsOf(plan));
    RestoreChangedByForward(Model(), applied.module);
    folder_.Write(network, [&](const std::filesystem::path& file) { SaveModule(applied.module, file); });
    const auto content = ModelHash(applied.module);
    quantized_.reset();  // it is corrected now; whoever wants plain weights quantizes again
    return {.input = {}, .content = content, .facts = FactsOf(correction, CalibrationAccuracy())};
  });
  PlaceNetwork(apply, network);
  const auto correction = CorrectionOf(apply.facts);
  calibration_accuracy_ = CalibrationAccuracyOf(apply.facts);
  SetCorrection(plan, correction.chosen);
  // Whoever asks for the corrections that "auto" chose gets the same network.
  if (const auto chosen = ApplyInput(plan); chosen != apply.input && !folder_.Find("apply", chosen)) {
    auto record = apply;
    record.input = chosen;
    record.facts = FactsOf(Correction{correction.chosen, {}}, calibration_accuracy_);
    folder_.Complete("apply", record, {network});
  }
  const auto verify = Ensure("verify", VerifyInput(apply), {}, [&]() -> StageRecord {
    WritePlan(plan, place, edited);
    return {.input = {}, .content = {}, .facts = FactsOf(Measure(Model().module, LoadModule(folder_.File(network))))};
  });
  plan.verified = VerificationOf(verify.facts);
  WritePlan(plan, place, edited);
  plan = LoadPlan(folder_.File("plan.yaml"));
  return correction.candidates;
}

std::vector<CorrectionCandidate> StageChain::VerifyInMemory(Plan& plan) {
  auto applied = Quantized(BitsOf(plan), ChoicesOf(plan));
  quantized_.reset();
  const auto correction = Correct(applied, BitsOf(plan));
  SetCorrection(plan, correction.chosen);
  calibration_accuracy_ = CalibrationAccuracy();
  plan.verified = Measure(Model().module, applied.module);
  return correction.candidates;
}

}  // namespace bitplan::pipeline
