// The stages of a run, pulled from below: asking for a result runs every stage above it whose inputs have changed, and
// loads what is needed and nothing else. Data are read when a stage that needs them runs.
//
// The input hash of a stage covers a version number of the stage, the content hashes of the stages that it reads, the
// recipe sections that it reads, the data it reads and the seed. Raise a version when a stage computes something else.
//
// Two seeds: `seed` is that of the network and its data; `calibration_seed` that of everything that calibration data
// give. A chain can go from one calibration seed to another (UseCalibrationSeed): the network stays, the stages below
// it are those of that seed, in files of their own where it is not the recipe's `seed` (calibration-seeds/N/).
//
// Bodies in the order of the stages: stage_model.cpp, stage_groups.cpp, stage_tables.cpp, stage_solve.cpp,
// stage_draft.cpp, stage_measure.cpp, stage_reference.cpp, stage_verify.cpp; what they share is in stage_chain.cpp.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/activation_memory.h"
#include "bitplan/core/choice.h"
#include "bitplan/core/correction.h"
#include "bitplan/core/options.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/problem.h"
#include "bitplan/core/progress.h"
#include "bitplan/core/statistics.h"
#include "bitplan/data/dataset.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/models/network.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/pipeline/run_folder.h"
#include "bitplan/posterior/posterior.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/ptq/float_side.h"
#include "bitplan/quantizers/layer_fits.h"
#include "bitplan/sensitivity/displacements.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "pipeline/model_checks.h"
#include "pipeline/oddities.h"
#include "sensitivity/activation_rises.h"

namespace bitplan::pipeline {

struct Solution {
  std::vector<int> bits;
  std::vector<LevelChoice> choices;
  std::vector<int> activation_bits{};  // empty: as the recipe says, one width for all
  double predicted_loss_rise = 0.0;
  double optimality_gap = -1.0;
  std::vector<double> shadow_prices{};  // one per limit, or one 0
  double allocate_ms = 0.0;
  std::string note;
  std::vector<std::vector<double>> width_probabilities;  // [layers][widths], or empty
  std::vector<PinCost> pins;
  std::vector<double> confidence;  // of every layer's width, or empty
};

// What one plan, or the float network, does on the images of one split.
struct SplitMeasurement {
  std::string data;
  Metrics metrics;
  std::vector<std::uint8_t> correct;  // classification: 0/1 per sample
  std::vector<float> nll;             // nats per sample, four digits
  // Other tasks: of every sample what it adds to the two sums whose ratio is the score.
  std::vector<double> gained{}, possible{};

  [[nodiscard]] std::int64_t samples() const { return static_cast<std::int64_t>(nll.size()); }
  [[nodiscard]] Outcomes outcomes() const {
    return possible.empty() ? Outcomes(&correct) : Outcomes(&gained, &possible);
  }
};

// What one plan, or the float network, does on the verification split, and on the calibration split: by that plans are
// chosen.
struct PlanMeasurement {
  SplitMeasurement verify, calibration;
  CorrectionMethod correction{};
  std::vector<LevelChoice> choices{};  // of every layer; none of the float network
};

class StageChain {
 public:
  // Reads and checks the recipe (every name in it is looked up before any work is done), opens and locks the folder.
  StageChain(const RecipeOptions& options, ProgressSink& progress);

  [[nodiscard]] const Recipe& recipe() const { return recipe_; }
  [[nodiscard]] const RunFolder& folder() const { return folder_; }
  [[nodiscard]] RunFolder& folder() { return folder_; }
  [[nodiscard]] const std::vector<StageStatus>& statuses() const { return statuses_; }

  // From here on everything but the network is that of another calibration seed.
  void UseCalibrationSeed(std::uint64_t seed);
  // From here on Solve and Draft are for other options, or another budget.
  void UseAllocation(const AllocateOptions& options);
  void UseBudget(const Budget& budget);
  // Whether the calibration split is the same for all calibration seeds.
  [[nodiscard]] bool SharesCalibrationSplit() const { return CalibrationSource() != "training"; }
  [[nodiscard]] std::int64_t CalibrationImages() { return Data().calibration.size(); }
  // Multiply-accumulates of one pass of the images of verify and calibration split through the network.
  [[nodiscard]] double MacsOfMeasuring();

  [[nodiscard]] const StageRecord& ModelRecord();
  // What stages depend on of the model: its hash, and its layers where some are of kinds that were left in float once.
  [[nodiscard]] std::string ModelInput();
  [[nodiscard]] const bitplan::Network& Model();
  // What its answers depend on besides the image, one line, where the recipe accepts that; else empty.
  [[nodiscard]] std::string ModelNote();
  [[nodiscard]] const StageRecord& PosteriorRecord() { return PosteriorRecord(recipe_.posterior.estimator); }
  [[nodiscard]] std::filesystem::path PosteriorFile() { return folder_.File(PosteriorRecord().files.front()); }
  [[nodiscard]] const bitplan::Posterior& LoadedPosterior() { return LoadedPosterior(recipe_.posterior.estimator); }
  // By the recipe's metric and estimator.
  [[nodiscard]] const AllocationProblem& Table();
  // The likelihood of the quantized network, for allocators that learn from it.
  [[nodiscard]] std::unique_ptr<LikelihoodOracle> Oracle(std::uint64_t seed);
  // Of a metric that keeps them.
  [[nodiscard]] const bitplan::Displacements& Displacements(const std::string& metric);
  // What a metric sees; the widths are those of allocate.bits.
  [[nodiscard]] SensitivityInputs Inputs(const std::string& metric, const std::string& estimator, bool with_posterior);
  // By another metric or estimator, kept beside the recipe's in files of their own. `estimator` empty: the recipe's.
  [[nodiscard]] const AllocationProblem& Table(const std::string& metric, const std::string& estimator = {});
  // Of the table that an allocator is defined by, else the recipe's.
  [[nodiscard]] std::string MetricOf(const Allocator& allocator) const;
  [[nodiscard]] Solution Solve();
  // Of widths of weights and activations together, where the recipe has several of both: what each layer may get, and
  // the answer of `options.allocator`. The table is that of `options.allocator` too.
  struct PairProblem {
    ChoiceProblem problem;
    std::vector<std::size_t> limit_of;             // [limits of the problem] the limit of the budget behind each
    std::vector<std::vector<std::size_t>> layers;  // [units of the problem] those of a group, or one
  };
  [[nodiscard]] PairProblem Pairs(const AllocateOptions& options);
  // By the recipe's calibration seed, or by a seed of its own.
  [[nodiscard]] Solution SolvePairs(const AllocateOptions& options, std::optional<std::uint64_t> seed = std::nullopt);
  // Bit operations of one input with this pair of widths for everything that is free to choose. Error(kUsage) where the
  // recipe does not have these widths.
  [[nodiscard]] double BopsOfPair(const Format& pair);
  // Measured together with the table of weights by a metric that does both in one pass.
  [[nodiscard]] ActivationRises ActivationTable() { return ActivationTable(recipe_.sensitivity.metric); }
  // By another metric, kept in a file of its own.
  [[nodiscard]] ActivationRises ActivationTable(const std::string& metric);
  // Bytes that are live at most with every layer that is planned reading at this width.
  [[nodiscard]] std::int64_t PeakAt(int activation_bits);
  // What of the network's activations is live at once.
  [[nodiscard]] const ActivationTimeline& Timeline();
  // The answer of `options.allocator` at `options.budget`, by the table that it is defined by, and how long it took. Of
  // an allocator that learns from the network it is kept in the folder; `learned`: it was not there.
  [[nodiscard]] Allocation Solve(const AllocateOptions& options, std::uint64_t seed, double& milliseconds,
                                 bool& learned);

  // From here on the stages quantize as a plan file says, and the table holds the widths of the file too.
  void Follow(const Plan& plan);
  // Writes into a plan of the recipe what it keeps to (quantizer.exportable), and by prediction what that costs: beside
  // its rise that of the same allocator at the same budget without the restriction, for the layers that have a place in
  // the format. Measures a second table by the same metric. Nothing is stated of an allocator that learns from the
  // network, and of several widths of activations.
  void StateExportable(Plan& plan);
  // Makes a transferred plan one of this recipe: what "auto" corrects is chosen anew, and the posterior is the model's.
  void Rebase(Plan& plan);
  // Grids and ranges of layers at these widths, which the table has.
  [[nodiscard]] std::vector<LevelChoice> ChoicesFor(const std::vector<int>& bits);
  // A plan without measurement; achieved figures from the table.
  [[nodiscard]] Plan Draft(const Solution& solution);
  // Sizes and prediction of the plan's bits.
  [[nodiscard]] PlanAchieved Achieved(const std::vector<int>& bits, double predicted_loss_rise);
  // Writes into the plan what else it takes: the peak of its activations, its latency by the recipe's table.
  void StateResources(Plan& plan);
  // The weights that a plan with these layers leaves in float.
  [[nodiscard]] LeftInFloat FloatPart(const std::vector<PlanLayer>& layers);
  // By the recipe's table, or by the one that an allocator of that name is defined by.
  [[nodiscard]] double PredictedLossRise(const std::vector<int>& bits, const std::string& allocator = {});
  // What the widths of activations are predicted to cost, where the recipe has several and so prices them; else 0.
  [[nodiscard]] double ActivationRise(const std::vector<int>& activation_bits);
  // Grids and ranges that the quantizer makes of the file's: at 0 and 1 bits there is only one grid.
  void RefreshChoices(Plan& plan);

  // Which layers share a width because they read one tensor; one line, empty where none do.
  [[nodiscard]] std::string FusedNote() const;

  // Where the calibration images come from: PlanCalibration::source.
  [[nodiscard]] std::string CalibrationSource() const;

  // What a sample of the data is called: image, row.
  [[nodiscard]] std::string SampleWord() const;
  // Names of the classes by number; empty where labels are numbers.
  [[nodiscard]] std::vector<std::string> ClassNames();
  // data.calibration, where it would be more than half of its split and fewer were taken; else 0.
  [[nodiscard]] std::int64_t CalibrationAsked();
  // One line about that; else empty.
  [[nodiscard]] std::string FewerCalibration();

  // What is known beside a plan's figures, and what is odd about them (pipeline/oddities.h).
  [[nodiscard]] OddityFacts Facts();
  [[nodiscard]] std::vector<std::string> Notes(const Plan& plan) { return Oddities(plan, Facts()); }

  // Sets the plan against one width for all layers within its budget on the calibration split; the better one by NLL is
  // what `plan` holds afterwards.
  void Guard(Plan& plan);

  // Writes the plan into plans/NAME/plan.yaml and plan.yaml, with its figures where this folder has verified it, and
  // its network under quantized.pt where it was applied here. Returns whether it was.
  bool PutInPlace(Plan& plan);
  // Applies the plan and measures it; plans/NAME/ gets quantized.pt, its codes and plan.yaml, all also under those
  // names alone. NAME states budget, allocator and a hash of what the network depends on. `edited`: the bits are
  // somebody's own, and plan.yaml stays his. Returns the corrections that were tried.
  std::vector<CorrectionCandidate> VerifyInFolder(Plan& plan, bool edited = false);
  // The same, writing nothing.
  std::vector<CorrectionCandidate> VerifyInMemory(Plan& plan);
  // Bytes of the packed file with the network that was verified last and its plan.
  [[nodiscard]] std::int64_t packed_bytes() const { return packed_bytes_; }
  // `plan` against `other` on the samples of the verify split; both are for this model and applied as their files say.
  [[nodiscard]] Verification Compare(const Plan& plan, const Plan& other);

  [[nodiscard]] PlanMeasurement MeasureFloat();
  // The float network with the correction of a plan with these widths, on the verification split; null where that
  // leaves it as it is. Measured once for every method, and kept in the folder under compare/.
  [[nodiscard]] const SplitMeasurement* MeasureFloatCorrected(const CorrectionMethod& method,
                                                              const std::vector<int>& bits);
  // Figures as files keep them.
  [[nodiscard]] Verification RoundedVerification(Verification result) const;
  // What measurements on the same samples say of each other. `corrected`: null where that is no other network.
  [[nodiscard]] Verification PairedVerification(const SplitMeasurement& reference, const SplitMeasurement& quantized,
                                                const SplitMeasurement* corrected) const;
  // The plan of one measured row of a comparison, as `verify --plan` takes it. `name`: of the allocator.
  [[nodiscard]] Plan MeasuredPlan(const std::string& name, const Budget& budget, std::uint64_t seed, Solution solution,
                                  const PlanMeasurement& measurement, const Verification& verified);
  // Quantizes, corrects and evaluates; kept in the folder under compare/ by the hash of everything that it depends on.
  // `activation_bits`: of every layer; empty: as the recipe says, one width for all.
  [[nodiscard]] PlanMeasurement MeasureBits(const std::vector<int>& bits, const std::vector<int>& activation_bits,
                                            bool& reused);
  // The same of a plan that Draft made.
  [[nodiscard]] PlanMeasurement MeasureDraft(const Plan& plan, bool& reused);
  // Of such a plan on the calibration images alone (both splits of the result); an "auto" correction is chosen on the
  // first `choosing` of them.
  [[nodiscard]] PlanMeasurement MeasureOnCalibration(const Plan& plan, std::int64_t choosing, bool& reused);
  // Of the float network on the calibration images.
  [[nodiscard]] SplitMeasurement FloatOnCalibration();

 private:
  struct Estimate {
    StageRecord record;
    std::optional<bitplan::Posterior> posterior;  // once it was needed
  };
  struct Measured {
    AllocationProblem problem;
    std::string content;
    std::optional<bitplan::Displacements> displacements;  // of a metric that keeps them
  };

  // Makes groups of linear layers that read one tensor, where the recipe does not decide about them.
  void GroupFused(const bitplan::Network& network);
  // Keeps quantizer and allocation to what the format of quantizer.exportable holds of the network: its limits, widths
  // among those of allocate.bits, layers that it has no place for excluded. Error(kUsage) of one line where the recipe
  // asks for something else, and the format's own where no plan of this network could be exported.
  void Restrict();
  void TryExport(const bitplan::Network& network);
  // The same limits as the plan that is followed has them. Error(kData) for a layer that its format does not hold.
  void FollowExportable(const Plan& plan);
  // The table at the widths of allocate.bits as the recipe has them, by a quantizer that keeps to no format.
  [[nodiscard]] AllocationProblem UnrestrictedTable(const std::string& metric);
  [[nodiscard]] std::string PosteriorStage(const std::string& estimator) const;
  [[nodiscard]] Recipe PosteriorRecipe(const std::string& estimator) const;
  [[nodiscard]] std::string PosteriorInput(const std::string& estimator);
  [[nodiscard]] const StageRecord& PosteriorRecord(const std::string& estimator);
  [[nodiscard]] const bitplan::Posterior& LoadedPosterior(const std::string& estimator);
  [[nodiscard]] const Measured& MeasuredTable(const std::string& metric, const std::string& estimator);
  // What the confidence of widths hangs on besides the replicates of `measured`, the table by `metric`. Empty when the
  // recipe asks for none, for allocators that state a confidence of their own or read sizes only, and, with a warning,
  // where no posterior can be estimated (a network without gradients) and the plan needs none.
  struct Draws {
    std::vector<PosteriorDraw> draws;
    std::string content;
  };
  [[nodiscard]] Draws PosteriorDraws(const std::string& metric, const Measured& measured);
  StageRecord Ensure(const std::string& stage, const std::string& input, const std::vector<std::string>& files,
                     const std::function<StageRecord()>& work);
  [[nodiscard]] const DataSplits& Data();
  [[nodiscard]] std::string DataHash(bool with_test);
  [[nodiscard]] std::string Section(const std::string& name) const;
  [[nodiscard]] std::string Seed() const { return std::to_string(recipe_.seed); }
  // Of the stages below the network: the seed, and the calibration seed where that is another.
  [[nodiscard]] std::string CalibrationSeed() const;
  // Name within the folder of what such a stage writes.
  [[nodiscard]] std::string CalibrationFile(const std::string& name) const;
  [[nodiscard]] bool NeedsPosterior() const;
  [[nodiscard]] std::vector<int> Widths() const;
  // What the quantizer's range looks at besides the weights.
  [[nodiscard]] const std::vector<QuantizerEvidence>& Evidence();
  // Of what Evidence reads.
  [[nodiscard]] std::string RangeEvidenceHash();
  [[nodiscard]] bool RangesByOutputs() const;
  // Error(kData) that names the image for which the float network gives no numbers.
  [[nodiscard]] torch::Tensor CorrectionImages();
  // From here on the images are what the network's input wants: floats, or integers as they are.
  void UseInputsOf(const bitplan::Network& network);
  // DescribeNetwork; an error says so where data.layout is the reason.
  [[nodiscard]] bitplan::Network Described(const torch::jit::Module& module, const std::string& name,
                                           const std::vector<std::int64_t>& shape, const torch::Tensor& images) const;
  // What its answers depend on besides the image, one line, where model.answers_may_vary accepts that; else empty.
  [[nodiscard]] ModelFit CheckModelSuitsData(const bitplan::Network& network);
  // Regression: the mean squared error of the float network on training images, and what the likelihood takes from it.
  [[nodiscard]] double NoiseOf(const bitplan::Network& network);
  void SetNoise(double variance);
  // Puts the float network's own answers where labels are missing, once both are there. They are kept in the folder.
  void LabelByModel();
  [[nodiscard]] std::string TrainingInput();
  // The model as the recipe has it, before ranges are evened out (model.equalize), which makes another network of it.
  void FindModel();
  void EqualizeModel();
  StageRecord TrainModel(const std::string& input);
  // The layers, before a model of an architecture is trained as after.
  [[nodiscard]] Network Outline();
  // Error as Allocate gives, before anything is trained or measured.
  void CheckBudget(const bitplan::Network& network);
  // The same for limits that allocators do not see, and for a table of latencies that lacks a row.
  void CheckResources(const bitplan::Network& network);
  // Of the recipe's table; none where it names none.
  [[nodiscard]] const std::vector<LatencyRow>& LatencyRows();
  // What an allocation depends on of the recipe's section, and of the table that it names.
  [[nodiscard]] std::string AllocateInput(const AllocateOptions& options);
  // Gives the units of a table, those of the network's layers, what their costs depend on beside their sizes.
  void PriceUnits(std::vector<Unit>& units, const bitplan::Network& network);
  // What ActivationTable depends on besides the table of weights.
  [[nodiscard]] std::string ActivationsInput(const std::string& metric);
  [[nodiscard]] StageRecord KeepActivations(const std::string& stage, const ActivationRises& rises);
  // Scales and grids of every layer at the widths of the table, and at those that were asked for before: found once,
  // kept in the folder.
  [[nodiscard]] const LayerFits& Fits();
  // The same, null where they have not been found yet: a plan alone needs one width of every layer.
  [[nodiscard]] const LayerFits* KnownFits();
  [[nodiscard]] std::string FitsInput();
  [[nodiscard]] std::string FitsFile() const;
  // ApplyBits with what is known already.
  [[nodiscard]] AppliedPlan Applied(const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
                                    const QuantizerOptions& options);
  // `choices` empty: by the quantizer's options.
  [[nodiscard]] AppliedPlan& Quantized(const std::vector<int>& bits, const std::vector<LevelChoice>& choices);
  [[nodiscard]] Correction Correct(AppliedPlan& applied, const std::vector<int>& bits) {
    return Correct(applied, bits, recipe_.quantizer, Data().calibration);
  }
  [[nodiscard]] Correction Correct(AppliedPlan& applied, const std::vector<int>& bits, const QuantizerOptions& options,
                                   const Dataset& calibration);
  // Training images that gradients are taken on, at most so many.
  [[nodiscard]] Dataset TeachingImages(std::int64_t count);
  // Ranges of activations, after the corrections.
  void Refine(AppliedPlan& applied, const QuantizerOptions& options);
  // Learned rounding, after these.
  std::optional<LearnedRounding> Learn(AppliedPlan& applied, const QuantizerOptions& options);
  // Of every layer's input, beside weights of these widths: as the plan that is followed says, else as the recipe does.
  [[nodiscard]] std::vector<int> ActivationBits(const std::vector<int>& bits);
  [[nodiscard]] torch::jit::Module Built(const Plan& plan);
  struct MadeNetwork {
    torch::jit::Module module;
    QuantizedNetwork codes;
    Correction correction;
  };
  // The network of a plan that is followed, applied and corrected: as the folder keeps it, or made in memory.
  [[nodiscard]] MadeNetwork KeptOrMade(const Plan& plan);
  // Of the float network on the first calibration images, when it has probably seen them.
  [[nodiscard]] std::optional<double> CalibrationAccuracy();
  [[nodiscard]] Verification Measure(const torch::jit::Module& reference, const torch::jit::Module& quantized,
                                     const std::optional<torch::jit::Module>& corrected = std::nullopt);
  // The network of `plan`, which states its correction, against the float network without and with that correction.
  [[nodiscard]] Verification MeasurePlan(const Plan& plan, const torch::jit::Module& quantized);
  // Empty where the correction leaves a float network as it is.
  [[nodiscard]] std::optional<torch::jit::Module> FloatCorrectedAs(const CorrectionMethod& method,
                                                                   const std::vector<int>& bits);
  // What FloatCorrectedAs depends on besides model, data and seed; empty where it is.
  [[nodiscard]] std::string FloatCorrectedInput(const CorrectionMethod& method, const std::vector<int>& bits) const;
  // A measurement of the folder by the hash of what it depends on, or `work`, which is kept there then.
  [[nodiscard]] PlanMeasurement Kept(const std::string& input, bool& reused,
                                     const std::function<PlanMeasurement()>& work);
  // Quantizes and corrects a plan whose network may come after it is measured, one of many.
  [[nodiscard]] AppliedPlan AppliedOfMany(const Plan& plan, const Dataset& calibration, PlanMeasurement& measured);
  // NLL on the second half of the calibration split; an "auto" correction is chosen on the first.
  [[nodiscard]] double GuardNll(const std::vector<int>& bits, const std::vector<LevelChoice>& choices,
                                const QuantizerOptions& options);
  [[nodiscard]] const Dataset& VerifySplit();
  // verify.batch, or fewer images where so many would not pass the network in bounded memory.
  [[nodiscard]] int Batch();
  [[nodiscard]] SplitMeasurement Evaluated(const torch::jit::Module& module, const Dataset& split,
                                           const std::string& label);
  [[nodiscard]] PlanMeasurement EvaluatedOnBoth(const torch::jit::Module& module, const std::string& what);
  [[nodiscard]] std::string ApplyInput(const Plan& plan);
  [[nodiscard]] std::string VerifyInput(const StageRecord& apply, const Plan& plan);
  // "plans/average_bits-3.0-quantile-inform-1a2b3c4d"
  [[nodiscard]] std::string PlaceOf(const Plan& plan, bool edited);
  void WritePlan(const Plan& plan, const std::string& place, bool edited);
  // Network and codes that this record of apply describes lie in `place` (a folder of the folder), and under their
  // names alone.
  void PlaceNetwork(StageRecord& apply, const std::string& place);
  // Writes into the plan the calibration seed that it is applied with, where that is not the recipe's seed.
  void StateCalibrationSeed(Plan& plan) const;
  // Bytes of the packed file with everything that `module` holds and the plan; 0 where some of it has no place there.
  [[nodiscard]] static std::int64_t PackedBytesWith(QuantizedNetwork codes, const torch::jit::Module& module,
                                                    const Plan& plan);
  // What a restart and exports read of `applied`, whose plan got this correction.
  [[nodiscard]] QuantizedNetwork KeepCodes(const Plan& plan, const CorrectionMethod& correction,
                                           const AppliedPlan& applied);
  // Sizes by what codes and scales take in their file.
  void SetStoredBytes(Plan& plan, std::int64_t bytes);

  ProgressSink& progress_;
  Recipe recipe_;
  std::string recipe_sha256_;
  Recipe asked_;  // recipe_ before a plan was followed or another calibration seed taken
  std::vector<std::filesystem::path> data_folders_;
  Normalizer normalizer_;
  RunFolder folder_;
  std::vector<StageStatus> statuses_;

  std::optional<DataSplits> data_;
  std::optional<SplitMeasurement> float_verify_;  // of the float network on the test split
  std::optional<double> calibration_accuracy_;    // of the float network, as it was measured last
  bool correction_images_sound_ = false;          // the float network takes them all
  std::map<bool, std::string> data_hashes_;
  std::optional<StageRecord> model_record_;
  std::string model_note_;
  std::optional<bitplan::Network> network_;
  bool groups_are_known_ = false;
  std::vector<std::vector<std::string>> fused_;  // groups of layers that the recipe does not name
  std::optional<ActivationTimeline> timeline_;
  std::vector<LatencyRow> latency_;
  std::string latency_hash_;
  std::map<std::string, Estimate> posteriors_;        // by estimator
  std::map<std::string, Measured> tables_;            // by the name of the stage
  std::unique_ptr<SensitivityInputs> oracle_inputs_;  // of the last oracle, which refers to them
  bool few_images_said_ = false;
  std::optional<std::vector<QuantizerEvidence>> evidence_;
  std::optional<FloatSide> float_side_;                       // what plans are rounded and corrected against
  bool several_plans_ = false;                                // whether it is kept from one to the next
  std::map<std::string, SplitMeasurement> floats_corrected_;  // by the hash of what each depends on
  std::map<std::string, LayerFits> fits_;                     // by the hash of what they were found from
  PlanExportable restriction_{};                              // of the recipe, where it has one
  std::vector<int> unrestricted_bits_;                        // allocate.bits without it
  std::map<std::string, std::string> not_held_;               // layers without a place in the format, and why
  bool unrestricted_ = false;                                 // while the table without restriction is measured
  std::int64_t packed_bytes_ = 0;
  std::optional<AppliedPlan> quantized_;
  std::vector<int> followed_activations_;  // of the plan that is followed; empty: as the recipe says
  std::vector<int> quantized_bits_;
};

}  // namespace bitplan::pipeline
