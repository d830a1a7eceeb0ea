#include "pipeline/stage_chain.h"

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/io/tables.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/sensitivity/network_oracle.h"
#include "bitplan/sensitivity/posterior_draws.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "bitplan/training/train.h"
#include "bitplan/verify/correction.h"
#include "io/json_text.h"
#include "pipeline/checks.h"
#include "pipeline/data_hash.h"
#include "pipeline/model_checks.h"
#include "posterior/finite.h"

namespace bitplan::pipeline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kOracleBatch = 128;
constexpr std::int64_t kRangePositions = 2048;  // inputs of every layer that ranges are fitted to

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string Join(const std::vector<int>& values) {
  std::string text;
  for (const int value : values) text += std::to_string(value) + " ";
  return text;
}

std::string FactsOf(const Allocation& answer) {
  const nlohmann::json facts = {{"bits", answer.bits},
                                {"cost", answer.cost},
                                {"predicted_loss_rise", answer.predicted_loss_rise},
                                {"lower_bound", answer.lower_bound},
                                {"has_bound", answer.has_bound},
                                {"shadow_price", answer.shadow_price},
                                {"note", answer.note},
                                {"width_probabilities", answer.width_probabilities}};
  return JsonText(facts);
}

Allocation AllocationFrom(const std::string& text) {
  const auto facts = nlohmann::json::parse(text);
  return {.bits = facts.at("bits"),
          .cost = facts.at("cost"),
          .predicted_loss_rise = facts.at("predicted_loss_rise"),
          .lower_bound = facts.at("lower_bound"),
          .has_bound = facts.at("has_bound"),
          .shadow_price = facts.at("shadow_price"),
          .note = facts.at("note"),
          .width_probabilities = facts.at("width_probabilities")};
}

Recipe LoadCheckedRecipe(const RecipeOptions& options) {
  Recipe recipe = LoadRecipe(options.recipe, options.overrides);
  CheckNames(recipe);
  return recipe;
}

}  // namespace

StageChain::StageChain(const RecipeOptions& options, ProgressSink& progress)
    : progress_(progress),
      recipe_(LoadCheckedRecipe(options)),
      recipe_sha256_(Sha256Hex(DumpRecipe(recipe_))),
      asked_(recipe_),
      data_folders_{options.data, options.recipe.parent_path()},
      normalizer_(recipe_.data),
      folder_(CheckedFolder(options, recipe_), [&progress](const std::string& line) { progress.Warn(line); }) {}

StageRecord StageChain::Ensure(const std::string& stage, const std::string& input,
                               const std::vector<std::string>& files, const std::function<StageRecord()>& work) {
  ThrowIfInterrupted();
  if (const auto record = folder_.Find(stage, input)) {
    statuses_.push_back({stage, true, record->seconds});
    return *record;
  }
  const auto start = Clock::now();
  StageRecord record = work();
  record.input = input;
  record.seconds = SecondsSince(start);
  record.files = files;
  folder_.Complete(stage, record, files);
  statuses_.push_back({stage, false, record.seconds});
  return record;
}

std::string StageChain::Section(const std::string& name) const { return DumpRecipeSection(recipe_, name); }

const DataSplits& StageChain::Data() {
  if (!data_) data_ = LoadData(recipe_.data, data_folders_, recipe_.seed);
  return *data_;
}

std::string StageChain::DataHash(bool with_test) {
  auto& hash = data_hashes_[with_test];
  if (hash.empty()) hash = pipeline::DataHash(recipe_, data_folders_, with_test);
  return hash;
}

void StageChain::UseInputsOf(const bitplan::Network& network) {
  if (network.input_type == torch::kInt64) normalizer_.KeepIntegers();
}

std::string StageChain::CheckModelSuitsData(const bitplan::Network& network) {
  UseInputsOf(network);
  const auto& data = Data();
  return CheckModelFits(network, data.train, {&data.calibration, &data.test}, normalizer_,
                        recipe_.model.answers_may_vary)
      .note;
}

bitplan::Network StageChain::Described(const torch::jit::Module& module, const std::string& name,
                                       const std::vector<std::int64_t>& shape, const torch::Tensor& images) const {
  try {
    return DescribeNetwork(module, name, shape, images);
  } catch (const Error& error) {
    const bool put_in =
        recipe_.data.name == "npy" && recipe_.data.layout == "images" && shape.size() == 3 && shape[0] == 1;
    if (error.kind() != ErrorKind::kData || !put_in) throw;
    // Not for every reason that a model is refused for: only where the other shape would do.
    try {
      (void)DescribeNetwork(module, name, {shape[1], shape[2]});
    } catch (const Error&) {
      throw error;
    }
    throw Error(ErrorKind::kData, std::string(error.what()) + "; it takes [" + std::to_string(shape[1]) + ", " +
                                      std::to_string(shape[2]) + "]: if the arrays are [N, " +
                                      std::to_string(shape[1]) + ", " + std::to_string(shape[2]) +
                                      "], set data.layout: as-is");
  }
}

std::string StageChain::TrainingInput() {
  return Sha256OfParts({"model/2", Section("model"), Section("train"), DataHash(false), Seed()});
}

StageRecord StageChain::TrainModel(const std::string& input) {
  const auto& data = Data();
  const auto& name = recipe_.model.architecture;
  auto module = BuildArchitecture(name, recipe_.seed);
  SetDropout(module, recipe_.train.dropout);
  (void)CheckModelSuitsData(DescribeNetwork(module, name, data.train.images.sizes().slice(1).vec()));
  const auto report = bitplan::Train(module, data.train, normalizer_, recipe_.train, recipe_.seed,
                                     folder_.File("model.checkpoint"), input, progress_);
  module.eval();
  folder_.Write("model.pt", [&](const std::filesystem::path& file) { SaveModule(module, file); });
  const nlohmann::json facts = {{"input_shape", data.train.images.sizes().slice(1).vec()},
                                {"classes", data.train.classes},
                                {"calibration", data.calibration.size()},
                                {"epoch_loss", report.epoch_loss}};
  return {.input = {}, .content = ModelHash(module), .facts = JsonText(facts)};
}

const StageRecord& StageChain::ModelRecord() {
  if (model_record_) return *model_record_;
  if (recipe_.model.file.empty()) {
    const auto input = TrainingInput();
    model_record_ = Ensure("model", input, {"model.pt"}, [&] { return TrainModel(input); });
    return *model_record_;
  }
  const auto file = FindInFolders(recipe_.model.file, data_folders_, "model file");
  auto module = LoadModule(file);
  const auto content = ModelHash(module);
  const auto input = Sha256OfParts({"model/3", content, DataHash(false), recipe_.model.answers_may_vary ? "vary" : ""});
  const auto some_images = [&] { return DescribingImages(Data().train, normalizer_); };
  model_record_ = Ensure("model", input, {}, [&]() -> StageRecord {
    const auto shape = Data().train.images.sizes().slice(1).vec();
    network_ = Described(module, ModelNameOf(file), shape, some_images());
    const auto note = CheckModelSuitsData(*network_);
    // Which layers there are must not depend on whether this stage is done.
    const nlohmann::json facts = {
        {"input_shape", shape},
                                  {"by_images", network_->has_rare_layers},
                                  {"note", note},
                                  {"classes", Data().train.classes},
                                  {"calibration", Data().calibration.size()}};
    return {.input = {}, .content = content, .facts = JsonText(facts)};
  });
  const auto facts = nlohmann::json::parse(model_record_->facts);
  if (!network_) {
    network_ = Described(module, ModelNameOf(file), facts.at("input_shape").get<std::vector<std::int64_t>>(),
                               facts.at("by_images").get<bool>() ? some_images() : torch::Tensor());
  }
  model_note_ = facts.at("note").get<std::string>();
  if (!model_note_.empty()) progress_.Warn(model_note_);
  UseInputsOf(*network_);
  return *model_record_;
}

const bitplan::Network& StageChain::Model() {
  const auto& record = ModelRecord();
  if (!network_) {
    const auto shape = nlohmann::json::parse(record.facts).at("input_shape").get<std::vector<std::int64_t>>();
    network_ = DescribeNetwork(LoadModule(folder_.File("model.pt")), recipe_.model.architecture, shape);
  }
  return *network_;
}

bitplan::Network StageChain::Outline() {
  if (!recipe_.model.file.empty() || folder_.Find("model", TrainingInput())) return Model();
  const auto& name = recipe_.model.architecture;
  return DescribeNetwork(BuildArchitecture(name, recipe_.seed), name, Data().train.images.sizes().slice(1).vec());
}

std::string StageChain::PosteriorStage(const std::string& estimator) const {
  return estimator == recipe_.posterior.estimator ? "posterior" : "posterior-" + estimator;
}

Recipe StageChain::PosteriorRecipe(const std::string& estimator) const {
  Recipe recipe = recipe_;
  recipe.posterior.estimator = estimator;
  return recipe;
}

std::string StageChain::PosteriorInput(const std::string& estimator) {
  return Sha256OfParts({"posterior/3", ModelRecord().content, DataHash(false),
                        DumpRecipeSection(PosteriorRecipe(estimator), "posterior"), Seed()});
}

const StageRecord& StageChain::PosteriorRecord(const std::string& estimator) {
  if (const auto found = posteriors_.find(estimator); found != posteriors_.end()) return found->second.record;
  const auto stage = PosteriorStage(estimator);
  Estimate estimate;
  estimate.record = Ensure(stage, PosteriorInput(estimator), {stage + ".pt"}, [&]() -> StageRecord {
    estimate.posterior = bitplan::EstimatePosterior(Model(), Data().train, normalizer_,
                                                    PosteriorRecipe(estimator).posterior, recipe_.seed, progress_);
    folder_.Write(stage + ".pt", [&](const std::filesystem::path& file) { SavePosterior(*estimate.posterior, file); });
    return {.input = {}, .content = estimate.posterior->Hash(), .facts = "{}"};
  });
  return posteriors_.emplace(estimator, std::move(estimate)).first->second.record;
}

const bitplan::Posterior& StageChain::LoadedPosterior(const std::string& estimator) {
  (void)PosteriorRecord(estimator);
  auto& posterior = posteriors_.at(estimator).posterior;
  if (!posterior) posterior = LoadPosterior(folder_.File(PosteriorStage(estimator) + ".pt"));
  const auto& layers = Model().layers;
  const auto same = [](const LayerPosterior& entry, const Layer& layer) { return entry.layer == layer.name; };
  if (!std::equal(posterior->layers.begin(), posterior->layers.end(), layers.begin(), layers.end(), same)) {
    throw Error(ErrorKind::kInternal, "the layers of the posterior are not those of " + Model().name);
  }
  return *posterior;
}

bool StageChain::NeedsPosterior() const {
  return FindSensitivityMetric(recipe_.sensitivity.metric).needs_posterior || recipe_.quantizer.range == "posterior" ||
         FindAllocator(recipe_.allocate.allocator).needs_posterior;
}

const AllocationProblem& StageChain::Table() { return Table(recipe_.sensitivity.metric); }

const AllocationProblem& StageChain::Table(const std::string& metric, const std::string& estimator) {
  return MeasuredTable(metric, estimator.empty() ? recipe_.posterior.estimator : estimator).problem;
}

const bitplan::Displacements& StageChain::Displacements() {
  return *MeasuredTable("predictive", recipe_.posterior.estimator).displacements;
}

std::vector<int> StageChain::Widths() const { return TableWidths(recipe_.allocate); }

SensitivityInputs StageChain::Inputs(const std::string& metric, const std::string& estimator, bool with_posterior) {
  auto options = recipe_.sensitivity;
  options.metric = metric;
  return {.network = Model(),
          .posterior = with_posterior ? &LoadedPosterior(estimator) : nullptr,
          .train = Data().train,
          .normalizer = normalizer_,
          .quantizer = recipe_.quantizer,
          .options = options,
          .widths = Widths(),
          .seed = recipe_.seed,
          .evidence = &Evidence()};
}

const StageChain::Measured& StageChain::MeasuredTable(const std::string& metric, const std::string& estimator) {
  std::string stage = "sensitivity";
  if (metric != recipe_.sensitivity.metric) stage += "-" + metric;
  if (estimator != recipe_.posterior.estimator) stage += "-" + estimator;
  if (Widths() != TableWidths(asked_.allocate)) stage += "-wider";  // a plan's widths, beside the recipe's own table
  if (const auto found = tables_.find(stage); found != tables_.end()) return found->second;
  const auto& known = FindSensitivityMetric(metric);
  Recipe recipe = recipe_;
  recipe.sensitivity.metric = metric;
  // Rounding and corrections come after the allocation, so only what the table hangs on stays in its hash.
  const QuantizerOptions defaults;
  auto& quantizer = recipe.quantizer;
  const bool counts = RangesByOutputs() || known.keeps_displacements;
  quantizer.centring = counts ? CentringName(CentringOf(quantizer)) : defaults.centring;
  quantizer.batch_norm = defaults.batch_norm;
  quantizer.output_correction = defaults.output_correction;
  quantizer.rounding = defaults.rounding;
  if (!RangesByOutputs()) quantizer.correction_samples = defaults.correction_samples;
  const bool with_posterior = NeedsPosterior() || known.needs_posterior;
  const auto input_with = [&](const std::string& posterior) {
    return Sha256OfParts({"sensitivity/5", ModelRecord().content, posterior,
                          recipe_.quantizer.range == "posterior" ? PosteriorRecord().content : std::string(),
                          DataHash(false), DumpRecipeSection(recipe, "sensitivity"),
                          DumpRecipeSection(recipe, "quantizer"), Join(Widths()), Seed()});
  };
  std::string input = input_with(with_posterior ? PosteriorRecord(estimator).content : "");
  if (!with_posterior) {
    // A table that was measured for an allocator that needs the posterior serves one that does not.
    const auto posterior = folder_.Find(PosteriorStage(estimator), PosteriorInput(estimator));
    if (posterior && folder_.Find(stage, input_with(posterior->content))) input = input_with(posterior->content);
  }
  const auto file = stage + ".json";
  std::vector<std::string> files = {file};
  if (known.keeps_displacements) files.push_back(stage + ".pt");
  const auto record = Ensure(stage, input, files, [&]() -> StageRecord {
    auto inputs = Inputs(metric, estimator, with_posterior);
    bitplan::Displacements displacements;
    inputs.displacements = &displacements;
    const auto text = DumpProblem(MeasureSensitivity(inputs, progress_));
    folder_.Write(file, text);
    if (known.keeps_displacements) {
      folder_.Write(files.back(),
                    [&](const std::filesystem::path& temporary) { SaveDisplacements(displacements, temporary); });
    }
    return {.input = {}, .content = Sha256Hex(text), .facts = "{}"};
  });
  Measured measured{LoadProblem(folder_.File(file)), record.content, std::nullopt};
  if (known.keeps_displacements) measured.displacements = LoadDisplacements(folder_.File(files.back()));
  const auto& layers = Model().layers;
  const auto same = [](const Unit& unit, const Layer& layer) { return unit.name == layer.name; };
  if (!std::equal(measured.problem.units.begin(), measured.problem.units.end(), layers.begin(), layers.end(), same)) {
    throw Error(ErrorKind::kInternal, "the units of the sensitivity table are not the layers of " + Model().name);
  }
  return tables_.emplace(stage, std::move(measured)).first->second;
}

StageChain::Draws StageChain::PosteriorDraws(const std::string& metric, const Measured& measured) {
  const auto& allocator = FindAllocator(recipe_.allocate.allocator);
  const int draws = recipe_.allocate.draws;
  if (draws == 0 || allocator.needs_oracle || allocator.reads == AllocatorReads::kSizes) return {};
  const auto& estimator = recipe_.posterior.estimator;
  if (!NeedsPosterior()) {
    // The plan does not hang on it: a network without gradients has a plan all the same.
    try {
      (void)PosteriorRecord(estimator);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kData) throw;
      progress_.Warn(std::string("confidence without networks from the posterior: ") + error.what());
      return {};
    }
  }
  const bool scores = allocator.needs_posterior || FindSensitivityMetric(metric).needs_posterior;
  const auto input =
      Sha256OfParts({"draws/7", metric, scores ? "scores" : "", measured.content, PosteriorRecord(estimator).content,
                     ModelRecord().content, DataHash(false), Section("posterior"), Section("sensitivity"),
                     Section("quantizer"), std::to_string(draws), Seed()});
  const std::string stage = metric == recipe_.sensitivity.metric ? "draws" : "draws-" + metric, file = stage + ".json";
  const auto record = Ensure(stage, input, {file}, [&]() -> StageRecord {
    const auto text = DumpPosteriorDraws(MeasurePosteriorDraws(Inputs(metric, estimator, true), measured.problem,
                                                               recipe_.posterior, draws, scores, progress_));
    folder_.Write(file, text);
    return {.input = {}, .content = Sha256Hex(text), .facts = "{}"};
  });
  return {LoadPosteriorDraws(folder_.File(file), measured.problem), record.content};
}

std::string StageChain::RangeEvidenceHash() {
  if (recipe_.quantizer.range == "posterior") return PosteriorRecord().content;
  return RangesByOutputs() ? DataHash(false) : "";
}

bool StageChain::RangesByOutputs() const {
  return recipe_.quantizer.range == "output" || recipe_.quantizer.range == "auto";
}

torch::Tensor StageChain::CorrectionImages() {
  const auto& train = Data().train;
  const auto order = RandomStream(recipe_.seed, "pipeline/correction").Permutation(train.size());
  const auto wanted = std::min<std::int64_t>(recipe_.quantizer.correction_samples, train.size());
  const auto count = std::min(wanted, ImagesAtOnce(Model()));  // rounding and corrections pass them at once
  if (count < wanted && !few_images_said_) {
    progress_.Info("rounding and corrections look at " + std::to_string(count) + " of " + std::to_string(wanted) +
                   " images: as many as pass the network at once in bounded memory");
    few_images_said_ = true;
  }
  const auto chosen = torch::tensor(std::vector<std::int64_t>(order.begin(), order.begin() + count));
  if (!correction_images_sound_) {
    RequireFiniteActivations(Model(), train, chosen, normalizer_);
    correction_images_sound_ = true;
  }
  return normalizer_.Apply(train.images.index_select(0, chosen));
}

const std::vector<QuantizerEvidence>& StageChain::Evidence() {
  if (evidence_) return *evidence_;
  const auto& network = Model();
  const auto& quantizer = recipe_.quantizer;
  std::vector<QuantizerEvidence> evidence(network.layers.size());
  if (quantizer.range == "posterior") {
    const auto& posterior = LoadedPosterior();
    for (std::size_t l = 0; l < evidence.size(); ++l) evidence[l].importance = posterior.Information(l);
  }
  if (RangesByOutputs()) {
    const auto inputs = SampleLayerInputs(network, CorrectionImages(), kRangePositions, recipe_.seed);
    const auto centred = CentredLayers(network, quantizer);
    for (std::size_t l = 0; l < evidence.size(); ++l) {
      evidence[l].inputs =
          inputs[l].defined() && centred[l] ? inputs[l] - inputs[l].mean(1, /*keepdim=*/true) : inputs[l];
    }
  }
  evidence_ = std::move(evidence);
  return *evidence_;
}

AppliedPlan& StageChain::Quantized(const std::vector<int>& bits, const std::vector<LevelChoice>& choices) {
  if (!quantized_ || quantized_bits_ != bits || quantized_->choices != choices) {
    quantized_ = ApplyBits(Model(), bits, choices, recipe_.quantizer, Evidence());
    quantized_bits_ = bits;
  }
  return *quantized_;
}

std::unique_ptr<LikelihoodOracle> StageChain::Oracle(std::uint64_t seed) {
  oracle_inputs_ = std::make_unique<SensitivityInputs>(
      Inputs(recipe_.sensitivity.metric, recipe_.posterior.estimator, recipe_.quantizer.range == "posterior"));
  oracle_inputs_->seed = seed;
  return MakeNetworkOracle(*oracle_inputs_, kOracleBatch);
}

void StageChain::CheckBudget() {
  AllocationProblem problem;
  problem.widths = Widths();
  for (const Layer& layer : Outline().layers) {
    Unit unit;
    unit.name = layer.name;
    unit.weights = layer.weights();
    unit.scales = recipe_.quantizer.granularity == "channel" ? layer.output_channels() : 1;
    unit.macs = layer.macs;
    problem.units.push_back(std::move(unit));
    problem.loss_rise.emplace_back(problem.widths.size(), 0.0);
  }
  CheckSolvable(problem, recipe_.allocate);
}

Solution StageChain::Solve() {
  CheckBudget();
  const auto& allocator = FindAllocator(recipe_.allocate.allocator);
  const std::string own_metric = allocator.metric,
                    metric = own_metric.empty() ? recipe_.sensitivity.metric : own_metric;
  const auto& measured = MeasuredTable(metric, recipe_.posterior.estimator);
  const auto& table = measured.problem;
  const auto draws = PosteriorDraws(metric, measured);
  const auto input = Sha256OfParts({"allocate/9", RangeEvidenceHash(), measured.content, draws.content,
                                    ModelRecord().content, Section("allocate"), Section("quantizer"),
                                    allocator.needs_oracle ? DataHash(false) : std::string(), Seed()});
  const auto record = Ensure("allocate", input, {}, [&]() -> StageRecord {
    const auto oracle = allocator.needs_oracle ? Oracle(recipe_.seed) : nullptr;
    const auto start = Clock::now();
    const auto answer = bitplan::Allocate(table, recipe_.allocate, recipe_.seed, oracle.get(), progress_);
    const double allocate_ms = 1e3 * SecondsSince(start);
    auto pins = nlohmann::json::array();
    for (const auto& [pin, rise] : PinCosts(table, recipe_.allocate)) {
      pins.push_back({pin.pattern, pin.bits, rise ? nlohmann::json(*rise) : nlohmann::json()});
    }
    auto choices = nlohmann::json::array();
    for (const auto& [grid, range] : Quantized(answer.bits, {}).choices) choices.push_back({grid, range});
    const nlohmann::json facts = {
        {"allocate_ms", allocate_ms},
        {"bits", answer.bits},
        {"predicted_loss_rise", answer.predicted_loss_rise},
        {"optimality_gap", answer.optimality_gap()},
        {"shadow_price", answer.shadow_price},
        {"note", answer.note},
        {"width_probabilities", answer.width_probabilities},
        {"pins", pins},
        {"confidence", WidthConfidence(table, draws.draws, recipe_.allocate, recipe_.seed, answer)},
        {"choices", choices}};
    return {.input = {}, .content = Sha256Hex(Join(answer.bits)), .facts = JsonText(facts)};
  });
  const auto facts = nlohmann::json::parse(record.facts);
  Solution solution{.bits = facts.at("bits"),
                    .choices = {},
                    .predicted_loss_rise = facts.at("predicted_loss_rise"),
                    .optimality_gap = facts.at("optimality_gap"),
                    .shadow_price = facts.at("shadow_price"),
                    .allocate_ms = facts.at("allocate_ms"),
                    .note = facts.at("note"),
                    .width_probabilities = facts.at("width_probabilities"),
                    .pins = {},
                    .confidence = facts.at("confidence")};
  for (const auto& choice : facts.at("choices")) solution.choices.push_back({choice.at(0), choice.at(1)});
  for (const auto& pin : facts.at("pins")) {
    PinCost& cost = solution.pins.emplace_back(PinCost{{pin.at(0), pin.at(1)}, std::nullopt});
    if (!pin.at(2).is_null()) cost.loss_rise = pin.at(2).get<double>();
  }
  return solution;
}

Allocation StageChain::Solve(const AllocateOptions& options, std::uint64_t seed, double& milliseconds, bool& learned) {
  const auto& allocator = FindAllocator(options.allocator);
  const std::string own_metric = allocator.metric;
  const auto& measured =
      MeasuredTable(own_metric.empty() ? recipe_.sensitivity.metric : own_metric, recipe_.posterior.estimator);
  learned = false;
  std::string input;
  if (allocator.needs_oracle) {
    Recipe asked = recipe_;
    asked.allocate = options;
    asked.allocate.draws = AllocateOptions{}.draws;  // no confidence is stated here
    input = Sha256OfParts({"solve/1", measured.content, ModelRecord().content, DataHash(false),
                           DumpRecipeSection(asked, "allocate"), Section("quantizer"), Section("sensitivity"),
                           std::to_string(seed)});
    if (const auto kept = folder_.Find("solve", input)) {
      milliseconds = 1e3 * kept->seconds;
      return AllocationFrom(kept->facts);
    }
    learned = true;
  }
  const auto oracle = allocator.needs_oracle ? Oracle(seed) : nullptr;
  const auto start = Clock::now();
  auto answer = bitplan::Allocate(measured.problem, options, seed, oracle.get(), progress_);
  milliseconds = 1e3 * SecondsSince(start);
  if (learned) {
    folder_.Complete("solve", {.input = input, .content = {}, .facts = FactsOf(answer), .seconds = 1e-3 * milliseconds},
                     {});
  }
  return answer;
}

}  // namespace bitplan::pipeline
