// The stages between model and bits: posteriors, tables of sensitivity, networks drawn from a posterior.
#include <algorithm>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/io/tables.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/sensitivity/posterior_draws.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "pipeline/clock.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

std::string StageChain::PosteriorStage(const std::string& estimator) const {
  return estimator == recipe_.posterior.estimator ? "posterior" : "posterior-" + estimator;
}

Recipe StageChain::PosteriorRecipe(const std::string& estimator) const {
  Recipe recipe = recipe_;
  recipe.posterior.estimator = estimator;
  return recipe;
}

std::string StageChain::PosteriorInput(const std::string& estimator) {
  return Sha256OfParts({"posterior/3", ModelInput(), DataHash(false),
                        DumpRecipeSection(PosteriorRecipe(estimator), "posterior"), CalibrationSeed()});
}

const StageRecord& StageChain::PosteriorRecord(const std::string& estimator) {
  if (const auto found = posteriors_.find(estimator); found != posteriors_.end()) return found->second.record;
  const auto stage = PosteriorStage(estimator), name = CalibrationFile(stage + ".pt");
  Estimate estimate;
  estimate.record = Ensure(stage, PosteriorInput(estimator), {name}, [&]() -> StageRecord {
    estimate.posterior = bitplan::EstimatePosterior(
        Model(), Data().train, normalizer_, PosteriorRecipe(estimator).posterior, recipe_.CalibrationSeed(), progress_);
    folder_.Write(name, [&](const std::filesystem::path& file) { SavePosterior(*estimate.posterior, file); });
    return {.input = {}, .content = estimate.posterior->Hash(), .facts = "{}"};
  });
  return posteriors_.emplace(estimator, std::move(estimate)).first->second.record;
}

const bitplan::Posterior& StageChain::LoadedPosterior(const std::string& estimator) {
  const auto& record = PosteriorRecord(estimator);
  auto& posterior = posteriors_.at(estimator).posterior;
  if (!posterior) posterior = LoadPosterior(folder_.File(record.files.front()));
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

const bitplan::Displacements& StageChain::Displacements(const std::string& metric) {
  return *MeasuredTable(metric, recipe_.posterior.estimator).displacements;
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
          .seed = recipe_.CalibrationSeed(),
          .fits = &Fits()};
}

// Ranges, centring and the images behind them; what rounding and corrections add comes later.
std::string StageChain::FitsInput() {
  const auto& quantizer = recipe_.quantizer;
  const std::string images = RangesByOutputs() ? std::string(CentringName(CentringOf(quantizer))) + " " +
                                                     std::to_string(quantizer.correction_samples)
                                               : std::string();
  return Sha256OfParts({"fits/3", ModelInput(), RangeEvidenceHash(), quantizer.scheme, quantizer.granularity,
                        quantizer.range, quantizer.grid, images + LimitsText(quantizer.limits), CalibrationSeed()});
}

std::string StageChain::FitsFile() const { return CalibrationFile(unrestricted_ ? "fits-unrestricted.pt" : "fits.pt"); }

const LayerFits* StageChain::KnownFits() {
  const auto input = FitsInput();
  if (const auto found = fits_.find(input); found != fits_.end()) return &found->second;
  const auto record = folder_.Find("fits", input);
  if (!record) return nullptr;
  const auto file = record->files.empty() ? CalibrationFile("fits.pt") : record->files.front();
  return &fits_.emplace(input, LoadLayerFits(folder_.File(file))).first->second;
}

const LayerFits& StageChain::Fits() {
  (void)KnownFits();
  const auto input = FitsInput();
  LayerFits& fits = fits_[input];
  const auto missing = fits.Missing(Widths());
  if (missing.empty()) return fits;
  const auto start = Clock::now();
  fits.Add(FitLayers(Model(), missing, recipe_.quantizer, &Evidence()));
  const auto file = FitsFile();
  folder_.Write(file, [&](const std::filesystem::path& temporary) { SaveLayerFits(fits, temporary); });
  folder_.Complete("fits", {.input = input, .content = {}, .facts = "{}", .seconds = SecondsSince(start)}, {file});
  return fits;
}

std::vector<LevelChoice> StageChain::ChoicesFor(const std::vector<int>& bits) {
  const LayerFits& fits = Fits();
  std::vector<LevelChoice> choices;
  for (std::size_t l = 0; l < bits.size(); ++l) {
    const QuantizedWeight* const fit = bits[l] > 8 ? nullptr : fits.Find(l, bits[l]);
    if (fit == nullptr && bits[l] <= 8) throw Error(ErrorKind::kInternal, "a width without scales");
    choices.push_back(fit == nullptr ? LevelChoice{"zero", "mse"} : LevelChoice{fit->grid, fit->range});
  }
  return choices;
}

const StageChain::Measured& StageChain::MeasuredTable(const std::string& metric, const std::string& estimator) {
  std::string stage = "sensitivity";
  if (metric != recipe_.sensitivity.metric) stage += "-" + metric;
  if (estimator != recipe_.posterior.estimator) stage += "-" + estimator;
  if (Widths() != TableWidths(asked_.allocate)) stage += "-wider";  // a plan's widths, beside the recipe's own table
  if (unrestricted_) stage += "-unrestricted";
  if (const auto found = tables_.find(stage); found != tables_.end()) return found->second;
  const auto& known = FindSensitivityMetric(metric);
  Recipe recipe = recipe_;
  recipe.sensitivity.metric = metric;
  // Rounding and corrections come after the allocation, so only what the table hangs on stays in its hash.
  const QuantizerOptions defaults;
  auto& quantizer = recipe.quantizer;
  quantizer.exportable.clear();  // what it means is in the limits
  quantizer.centring = CentringName(CentringOf(quantizer));
  quantizer.batch_norm = defaults.batch_norm;
  quantizer.output_correction = defaults.output_correction;
  quantizer.rounding = defaults.rounding;
  quantizer.activation_range = defaults.activation_range;
  quantizer.range_sweeps = defaults.range_sweeps;
  quantizer.activation_sums = defaults.activation_sums;
  quantizer.learned_steps = defaults.learned_steps;
  quantizer.learned_samples = defaults.learned_samples;
  quantizer.learned_rate = defaults.learned_rate;
  if (!RangesByOutputs()) quantizer.correction_samples = defaults.correction_samples;
  const bool with_posterior = NeedsPosterior() || known.needs_posterior;
  const auto input_with = [&](const std::string& posterior) {
    return Sha256OfParts({"sensitivity/9", ModelInput(), posterior,
                          recipe_.quantizer.range == "posterior" ? PosteriorRecord().content : std::string(),
                          DataHash(false), DumpRecipeSection(recipe, "sensitivity"),
                          DumpRecipeSection(recipe, "quantizer") + LimitsText(quantizer.limits), BitsText(Widths()),
                          CalibrationSeed()});
  };
  std::string input = input_with(with_posterior ? PosteriorRecord(estimator).content : "");
  if (!with_posterior) {
    // A table that was measured for an allocator that needs the posterior serves one that does not.
    const auto posterior = folder_.Find(PosteriorStage(estimator), PosteriorInput(estimator));
    if (posterior && folder_.Find(stage, input_with(posterior->content))) input = input_with(posterior->content);
  }
  const auto file = CalibrationFile(stage + ".json");
  std::vector<std::string> files = {file};
  if (known.keeps_displacements) files.push_back(CalibrationFile(stage + ".pt"));
  const auto record = Ensure(stage, input, files, [&]() -> StageRecord {
    auto inputs = Inputs(metric, estimator, with_posterior);
    bitplan::Displacements displacements;
    inputs.displacements = &displacements;
    auto activation_widths = recipe_.allocate.activation_bits;
    std::sort(activation_widths.begin(), activation_widths.end());
    std::optional<ActivationMeter> activations;  // in the same passes, where nobody has measured them yet
    if (activation_widths.size() > 1 && metric == recipe_.sensitivity.metric && known.takes_activations &&
        inputs.options.coherence && inputs.options.samples > 0 &&
        !folder_.Find("activations", ActivationsInput(metric))) {
      activations.emplace(inputs, activation_widths, recipe_.quantizer.activation_range);
      inputs.activations = &*activations;
    }
    const auto text = DumpProblem(MeasureSensitivity(inputs, progress_));
    if (activations) {
      auto measured = KeepActivations("activations", activations->Finish(inputs.widths));
      measured.input = ActivationsInput(metric);
      folder_.Complete("activations", measured, {CalibrationFile("activations.json")});
    }
    folder_.Write(file, text);
    if (known.keeps_displacements) {
      folder_.Write(files.back(),
                    [&](const std::filesystem::path& temporary) { SaveDisplacements(displacements, temporary); });
    }
    return {.input = {}, .content = Sha256Hex(text), .facts = "{}"};
  });
  Measured measured{LoadProblem(folder_.File(record.files.front())), record.content, std::nullopt};
  if (known.keeps_displacements) measured.displacements = LoadDisplacements(folder_.File(record.files.back()));
  const auto& layers = Model().layers;
  const auto same = [](const Unit& unit, const Layer& layer) { return unit.name == layer.name; };
  if (!std::equal(measured.problem.units.begin(), measured.problem.units.end(), layers.begin(), layers.end(), same)) {
    throw Error(ErrorKind::kInternal, "the units of the sensitivity table are not the layers of " + Model().name);
  }
  PriceUnits(measured.problem.units, Model());
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
      Sha256OfParts({"draws/9", metric, scores ? "scores" : "", measured.content, PosteriorRecord(estimator).content,
                     ModelInput(), DataHash(false), Section("posterior"), Section("sensitivity"), Section("quantizer"),
                     std::to_string(draws), CalibrationSeed()});
  const std::string stage = metric == recipe_.sensitivity.metric ? "draws" : "draws-" + metric,
                    file = CalibrationFile(stage + ".json");
  const auto record = Ensure(stage, input, {file}, [&]() -> StageRecord {
    const auto text = DumpPosteriorDraws(MeasurePosteriorDraws(Inputs(metric, estimator, true), measured.problem,
                                                               recipe_.posterior, draws, scores, progress_));
    folder_.Write(file, text);
    return {.input = {}, .content = Sha256Hex(text), .facts = "{}"};
  });
  return {LoadPosteriorDraws(folder_.File(record.files.front()), measured.problem), record.content};
}

}  // namespace bitplan::pipeline
