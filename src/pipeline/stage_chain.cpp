#include "pipeline/stage_chain.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/models/at_once.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/layer_inputs.h"
#include "pipeline/checks.h"
#include "pipeline/clock.h"
#include "pipeline/data_hash.h"
#include "posterior/finite.h"

namespace bitplan::pipeline {
namespace {

constexpr std::int64_t kRangePositions = 2048;  // inputs of every layer that ranges are fitted to

}  // namespace

StageChain::StageChain(const RecipeOptions& options, ProgressSink& progress)
    : progress_(progress),
      recipe_(LoadCheckedRecipe(options)),
      recipe_sha256_(Sha256Hex(DumpRecipe(recipe_))),
      asked_(recipe_),
      data_folders_{options.data, options.recipe.parent_path()},
      normalizer_(recipe_.data),
      folder_(CheckedFolder(options, recipe_), [&progress](const std::string& line) { progress.Warn(line); }) {
  if (!recipe_.quantizer.exportable.empty()) Restrict();
}

StageRecord StageChain::Ensure(const std::string& stage, const std::string& input,
                               const std::vector<std::string>& files, const std::function<StageRecord()>& work) {
  ThrowIfInterrupted();
  if (const auto record = folder_.Find(stage, input)) {
    const auto known = [&](const StageStatus& status) { return status.name == stage; };
    if (std::none_of(statuses_.begin(), statuses_.end(), known)) statuses_.push_back({stage, true, record->seconds});
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

std::string StageChain::Section(const std::string& name) const {
  return DumpRecipeSection(recipe_, name) + (name == "quantizer" ? LimitsText(recipe_.quantizer.limits) : "");
}

const DataSplits& StageChain::Data() {
  if (!data_) {
    data_ = LoadData(recipe_.data, data_folders_, recipe_.seed,
                     SharesCalibrationSplit() ? recipe_.seed : recipe_.CalibrationSeed());
    if (model_record_) SetNoise(nlohmann::json::parse(model_record_->facts).value("noise", 0.0));
    LabelByModel();
  }
  return *data_;
}

void StageChain::UseCalibrationSeed(std::uint64_t seed) {
  (void)Model();  // as the calibration seed at hand has it described
  if (seed == recipe_.CalibrationSeed()) return;
  recipe_.calibration_seed = seed;
  if (!SharesCalibrationSplit()) {
    data_.reset();
    calibration_accuracy_.reset();
  }
  correction_images_sound_ = false;
  posteriors_.clear();
  oracle_inputs_.reset();
  tables_.clear();
  evidence_.reset();
  float_side_.reset();
  quantized_.reset();
}

void StageChain::UseAllocation(const AllocateOptions& options) { recipe_.allocate = asked_.allocate = options; }

void StageChain::UseBudget(const Budget& budget) { recipe_.allocate.budget = asked_.allocate.budget = budget; }

double StageChain::MacsOfMeasuring() {
  double macs = 0.0;
  for (const Layer& layer : Model().layers) macs += static_cast<double>(layer.macs);
  const auto images = Data().calibration.size() + (recipe_.verify.split == "test" ? Data().test.size() : 0);
  return macs * static_cast<double>(images);
}

std::string StageChain::CalibrationSeed() const {
  if (recipe_.CalibrationSeed() == recipe_.seed) return Seed();
  return Seed() + "/" + std::to_string(recipe_.CalibrationSeed());
}

std::string StageChain::CalibrationFile(const std::string& name) const {
  if (recipe_.CalibrationSeed() == recipe_.seed) return name;
  return "calibration-seeds/" + std::to_string(recipe_.CalibrationSeed()) + "/" + name;
}

std::string StageChain::DataHash(bool with_test) {
  auto& hash = data_hashes_[with_test];
  if (hash.empty()) hash = pipeline::DataHash(recipe_, data_folders_, with_test);
  return hash;
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
  const auto order = RandomStream(recipe_.CalibrationSeed(), "pipeline/correction").Permutation(train.size());
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
    const auto inputs = SampleLayerInputs(network, CorrectionImages(), kRangePositions, recipe_.CalibrationSeed());
    const auto centred = CentredLayers(network, quantizer);
    for (std::size_t l = 0; l < evidence.size(); ++l) {
      evidence[l].inputs =
          inputs[l].defined() && centred[l] ? inputs[l] - inputs[l].mean(1, /*keepdim=*/true) : inputs[l];
    }
  }
  evidence_ = std::move(evidence);
  return *evidence_;
}

AppliedPlan StageChain::Applied(const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
                                const QuantizerOptions& options) {
  const LayerFits* const known = KnownFits();
  const bool all = known != nullptr && AreKnown(*known, bits, choices, options);
  return ApplyBits(Model(), bits, choices, options, all ? std::vector<QuantizerEvidence>() : Evidence(), known);
}

AppliedPlan& StageChain::Quantized(const std::vector<int>& bits, const std::vector<LevelChoice>& choices) {
  if (!quantized_ || quantized_bits_ != bits || quantized_->choices != choices) {
    quantized_ = Applied(bits, choices, recipe_.quantizer);
    quantized_bits_ = bits;
  }
  return *quantized_;
}

}  // namespace bitplan::pipeline
