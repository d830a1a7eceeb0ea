#include "bitplan/pipeline/bayes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/bayes/learn.h"
#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/unit_sensitivity.h"
#include "bitplan/bayes/variational_network.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/core/statistics.h"
#include "bitplan/data/dataset.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/models/activations.h"
#include "bitplan/models/architectures.h"
#include "bitplan/pipeline/run_folder.h"
#include "pipeline/checks.h"
#include "pipeline/data_hash.h"

namespace bitplan::pipeline {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kFitImages = 1024;   // training images that activation steps are fitted to
constexpr std::int64_t kTableImages = 1024; // calibration images of the table of widths
constexpr int kTableDraws = 8;
constexpr int kGroupDraws = 4;              // of the float network, for the groups in which uncertainty is held
constexpr double kBudgetStep = 0.5;         // bits that a plan's budget rises by while a cap is broken
constexpr int kResamples = 2000;
constexpr const char* kClean = "clean";
constexpr const char* kAmbiguous = "ambiguous";
constexpr const char* kUnknown = "out-of-distribution";

std::string HashOf(std::initializer_list<std::string_view> parts) {
  Sha256 hash;
  for (const auto part : parts) hash.Update(part);
  return hash.Hex();
}

// One quantized network to measure, but for the seed.
struct RowSpec {
  std::string name, scheme, stage, sigma_scale;
  double bits = 0.0;
  BayesWidths widths;  // of every layer; not used by a plan
  int activation_bits = kFloatBits;
};

int Width(int own, int common) { return own == 0 ? common : own > 8 ? kFloatBits : own; }

std::vector<RowSpec> Rows(const BayesOptions& options) {
  std::vector<RowSpec> rows;
  for (const std::string& name : options.schemes) {
    const BayesScheme& scheme = FindBayesScheme(name);
    for (const std::string& scale : options.sigma_scales) {
      if (!scheme.parameters && &scale != &options.sigma_scales.front()) continue;  // one row is enough
      // Beside the logarithmic scale the linear one is measured where nothing but the parameters is rounded and nothing
      // makes up for it.
      const bool beside = scheme.parameters && scale == "linear" && options.sigma_scales.size() > 1;
      if (beside && scheme.samples) continue;
      for (const std::string& stage : options.stages) {
        if (beside && stage != "trained") continue;
        for (const int bits : options.bits) {
          RowSpec row;
          row.scheme = name;
          row.stage = stage;
          row.sigma_scale = scheme.parameters ? scale : "";
          row.bits = bits;
          row.name = fmt::format("{}-{}{}-{}", name, bits, scheme.parameters && scale == "linear" ? "-linear" : "", stage);
          if (scheme.parameters) {
            row.widths.mean = Width(options.mean_bits, bits);
            row.widths.sigma = Width(options.sigma_bits, bits);
          }
          if (scheme.samples) row.widths.sample = Width(options.sample_bits, bits);
          row.activation_bits = Width(options.activation_bits, bits);
          rows.push_back(std::move(row));
        }
      }
    }
  }
  return rows;
}

template <typename T>
void CheckUnique(const char* key, std::vector<T> values) {
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  if (twice != values.end()) throw Error(ErrorKind::kUsage, fmt::format("bayes.{} holds {} twice", key, *twice));
  if (values.empty()) throw Error(ErrorKind::kUsage, fmt::format("bayes.{} is empty", key));
}

struct Split {
  std::string role;
  DistinctImages images;
};

class BayesRun {
 public:
  BayesRun(const RecipeOptions& options, ProgressSink& progress)
      : progress_(progress),
        recipe_(LoadRecipe(options.recipe, options.overrides)),
        folders_{options.data, options.recipe.parent_path()},
        normalizer_(recipe_.data),
        folder_((CheckNames(recipe_), options.out.empty() ? std::filesystem::path("out") / recipe_.name : options.out)) {
    for (const auto& [role, name] : Roles()) (void)FindDatasetSource(name);
    const auto& bayes = recipe_.bayes;
    CheckUnique("bits", bayes.bits);
    CheckUnique("schemes", bayes.schemes);
    CheckUnique("stages", bayes.stages);
    CheckUnique("sigma_scales", bayes.sigma_scales);
    const std::pair<const char*, int> own[] = {{"mean_bits", bayes.mean_bits}, {"sigma_bits", bayes.sigma_bits},
                                               {"sample_bits", bayes.sample_bits},
                                               {"activation_bits", bayes.activation_bits}};
    for (const auto& [key, bits] : own) {
      if (bits > 8 && bits != kFloatBits) {
        throw Error(ErrorKind::kUsage, fmt::format("bayes.{} is {}; it must be 0 (as bayes.bits), 1..8 or 32", key, bits));
      }
    }
  }

  BayesReport Run() {
    const auto& bayes = recipe_.bayes;
    const auto specs = Rows(bayes);
    std::map<std::string, BayesRow> rows;
    std::vector<std::string> order = {"float"};
    rows["float"] = {.name = "float"};
    for (const RowSpec& spec : specs) {
      order.push_back(spec.name);
      rows[spec.name] = {.name = spec.name, .scheme = spec.scheme, .stage = spec.stage,
                         .sigma_scale = spec.sigma_scale, .bits = spec.bits};
    }
    const std::string plan = fmt::format("plan-{:g}", bayes.plan.average_bits);
    if (bayes.plan.average_bits > 0.0) {
      order.push_back(plan);
      rows[plan] = {.name = plan, .scheme = "plan", .stage = "fine-tuned", .sigma_scale = "log",
                    .bits = bayes.plan.average_bits};
    }
    for (int s = 0; s < bayes.seeds; ++s) {
      seed_ = recipe_.seed + static_cast<std::uint64_t>(s);
      reference_.reset();
      rows["float"].seeds.push_back(FloatRow());
      for (const RowSpec& spec : specs) rows[spec.name].seeds.push_back(QuantizedRow(spec));
      if (bayes.plan.average_bits > 0.0) rows[plan].seeds.push_back(PlanRow(plan));
    }
    BayesReport report;
    auto& comparison = report.comparison;
    comparison.model = ModelName();
    for (const auto& layer : Base().layers) comparison.layers.push_back(layer.name);
    comparison.data = Roles();
    comparison.draws = bayes.draws;
    for (const std::string& name : order) {
      if (name != "float") Compare(rows["float"], rows[name]);
    }
    if (bayes.plan.average_bits > 0.0) rows[plan].bits = AverageBits(rows[plan]);  // a cap may have raised the budget
    for (const std::string& name : order) comparison.rows.push_back(std::move(rows[name]));
    for (const auto& [role, count] : image_counts_) comparison.images[role] = count;
    Picture(comparison);
    report.files = WriteBayesComparison(comparison, folder_.path());
    report.folder = folder_.path();
    report.stages = std::move(statuses_);
    return report;
  }

 private:
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> Roles() const {
    const auto& bayes = recipe_.bayes;
    if (OnCalibration()) return {{kClean, recipe_.data.name}};
    std::vector<std::pair<std::string, std::string>> roles = {{kClean, bayes.clean.empty() ? recipe_.data.name : bayes.clean}};
    if (!bayes.ambiguous.empty()) roles.emplace_back(kAmbiguous, bayes.ambiguous);
    if (!bayes.out_of_distribution.empty()) roles.emplace_back(kUnknown, bayes.out_of_distribution);
    return roles;
  }

  // Choices between recipes are made there: one split, of the data that are trained on.
  [[nodiscard]] bool OnCalibration() const { return recipe_.verify.split == "calibration"; }

  [[nodiscard]] std::string ModelName() const {
    if (!recipe_.bayes.from.empty()) return ModelNameOf(recipe_.bayes.from);
    return recipe_.model.file.empty() ? recipe_.model.architecture : ModelNameOf(recipe_.model.file);
  }

  [[nodiscard]] std::string Name(const std::string& row) const { return fmt::format("seed-{}/{}", seed_, row); }

  StageRecord Ensure(const std::string& stage, const std::string& input, const std::vector<std::string>& files,
                     const std::function<StageRecord()>& work) {
    ThrowIfInterrupted();
    if (const auto record = folder_.Find(stage, input)) {
      statuses_.push_back({stage, true, record->seconds});
      return *record;
    }
    progress_.Info(stage);
    EnsureWritableFolder(folder_.File(stage).parent_path());
    const auto start = Clock::now();
    StageRecord record = work();
    record.input = input;
    record.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    folder_.Complete(stage, record, files);
    statuses_.push_back({stage, false, record.seconds});
    return record;
  }

  const DataSplits& Data() {
    if (!data_) data_ = LoadData(recipe_.data, folders_, recipe_.seed);
    return *data_;
  }

  const std::vector<Split>& TestSplits() {
    if (!splits_.empty()) return splits_;
    if (OnCalibration()) {
      splits_.push_back({kClean, Distinct(Data().calibration)});
      return splits_;
    }
    for (const auto& [role, name] : Roles()) {
      DataOptions options = recipe_.data;
      options.name = name;
      splits_.push_back({role, Distinct(FindDatasetSource(name).load(options, folders_, recipe_.seed).test)});
    }
    return splits_;
  }

  const std::string& TestHash() {
    if (!test_hash_.empty()) return test_hash_;
    Sha256 hash;
    hash.Update(recipe_.verify.split);
    if (OnCalibration()) hash.Update(DataHash(recipe_, folders_, false));
    for (const auto& [role, name] : Roles()) {
      hash.Update(role).Update(name);
      DataOptions options = recipe_.data;
      options.name = name;
      for (const auto& file : FindDatasetSource(name).files(options, folders_).test) hash.Update(FileSha256(file));
    }
    test_hash_ = hash.Hex();
    return test_hash_;
  }

  // The graph of every network of this run: the recipe's model with the recipe's activation.
  const Network& Base() {
    if (base_) return *base_;
    const auto& file = recipe_.bayes.from.empty() ? recipe_.model.file : recipe_.bayes.from;
    const auto shape = Data().train.images.sizes().slice(1).vec();
    if (Data().train.size() == 0) throw Error(ErrorKind::kData, recipe_.data.name + " has no training images");
    auto module = file.empty() ? BuildArchitecture(recipe_.model.architecture, recipe_.seed)
                               : LoadModule(FindInFolders(file, folders_, "model file"));
    SetDropout(module, 0.0);  // the draws of the weights are the noise
    const Network described = DescribeNetwork(module, ModelName(), shape);
    base_ = WithActivation(described, FindActivationFunction(recipe_.bayes.activation));
    return *base_;
  }

  // Where the means of this seed begin.
  Network First() {
    const auto& file = recipe_.bayes.from.empty() ? recipe_.model.file : recipe_.bayes.from;
    if (!file.empty()) return Base();
    Network network = Base();
    network.module = CloneModule(network.module);
    const auto initial = BuildArchitecture(recipe_.model.architecture, seed_);
    const torch::NoGradGuard no_grad;
    for (const auto& [name, value] : initial.named_parameters()) SetTensor(network.module, name, value.clone());
    return network;
  }

  std::string FloatInput() {
    const auto& b = recipe_.bayes;
    const auto& file = b.from.empty() ? recipe_.model.file : b.from;
    const std::string model =
        file.empty() ? recipe_.model.architecture : FileSha256(FindInFolders(file, folders_, "model file"));
    return HashOf({"bayes/2", model, DataHash(recipe_, folders_, false), std::to_string(recipe_.seed),
                   fmt::format("{} {} {} {} {} {} {} {}", b.activation, b.epochs, b.learning_rate, b.batch,
                               b.prior_sigma, b.first_sigma, seed_, recipe_.seed)});
  }

  std::string FineTuning() const {
    const auto& b = recipe_.bayes;
    return fmt::format("{} {} {} {}", b.fine_tune, b.fine_tune_epochs, b.fine_tune_learning_rate, b.batch);
  }

  // The float network of this seed, as stored.
  const StoredNetwork& Reference() {
    if (!reference_) {
      (void)FloatRecord();
      reference_ = LoadPacked(folder_.File(Name("float.packed")), Base());
    }
    return *reference_;
  }

  const StageRecord& FloatRecord() {
    if (float_record_ && float_seed_ == seed_) return *float_record_;
    float_seed_ = seed_;
    float_record_ = Ensure(Name("float-network"), FloatInput(), {Name("float.packed")}, [&]() -> StageRecord {
      const auto& b = recipe_.bayes;
      VariationalNetwork network(First(), b.first_sigma);
      const auto losses = LearnBound(network, Data().train, normalizer_, b, true, b.epochs, b.learning_rate, seed_,
                                     progress_);
      (void)SavePacked(network.Store(), folder_.File(Name("float.packed")));
      return {.input = {}, .content = FileSha256(folder_.File(Name("float.packed"))),
              .facts = Json{{"losses", losses}}.dump()};
    });
    return *float_record_;
  }

  BayesSeedResult FloatRow() {
    const std::string input = HashOf({"measure/1", FloatRecord().content, TestHash(), std::to_string(recipe_.bayes.draws)});
    return Parsed(Ensure(Name("float"), input, {Name("float.pt")}, [&]() -> StageRecord {
      const auto& file = folder_.File(Name("float.packed"));
      const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(file));
      return Measure(Reference(), "float", {bytes, bytes});
    }));
  }

  BayesSeedResult QuantizedRow(const RowSpec& spec) {
    const auto& b = recipe_.bayes;
    const std::string description =
        fmt::format("{} {} {} {} {} {} {} {} {}", spec.name, spec.widths.mean, spec.widths.sigma, spec.widths.sample,
                    spec.activation_bits, spec.sigma_scale, recipe_.quantizer.granularity, recipe_.quantizer.grid, b.draws);
    const std::string input = HashOf({"row/2", FloatRecord().content, TestHash(), description,
                                      spec.stage == "trained" ? std::string() : FineTuning()});
    return Parsed(Ensure(Name(spec.name), input, {Name(spec.name + ".packed"), Name(spec.name + ".pt")}, [&] {
      const std::vector<BayesWidths> widths(Base().layers.size(), spec.widths);
      return Packed(Quantized(widths, spec.activation_bits, spec.sigma_scale, spec.stage), spec.name);
    }));
  }

  StoredNetwork Quantized(const std::vector<BayesWidths>& widths, int activation_bits, const std::string& sigma_scale,
                          const std::string& stage) {
    const auto& b = recipe_.bayes;
    const bool scratch = stage == "scratch";
    VariationalNetwork network = scratch ? VariationalNetwork(First(), b.first_sigma) : VariationalNetwork(Reference());
    network.Quantize(widths, sigma_scale.empty() ? "log" : sigma_scale, recipe_.quantizer, seed_);
    if (activation_bits != kFloatBits) {
      const auto images = Data().train.Head(std::min(kFitImages, Data().train.size())).images;
      network.QuantizeActivations(activation_bits, normalizer_.Apply(images), seed_);
    }
    if (scratch) {
      (void)LearnBound(network, Data().train, normalizer_, b, true, b.epochs, b.learning_rate, seed_, progress_);
    } else if (stage == "fine-tuned" && b.fine_tune == "bound") {
      (void)LearnBound(network, Data().train, normalizer_, b, false, b.fine_tune_epochs, b.fine_tune_learning_rate,
                       seed_ + 1'000'000, progress_);
    } else if (stage == "fine-tuned") {
      const bool hold = b.fine_tune == "reference";
      if (hold && (!aleatoric_.defined() || aleatoric_seed_ != seed_)) {
        aleatoric_ =
            MeasureAleatoric(Reference(), Data().train, normalizer_, kGroupDraws, seed_ + 2'000'000, progress_);
        aleatoric_seed_ = seed_;
      }
      (void)LearnReference(network, Reference(), hold ? aleatoric_ : torch::Tensor(), Data().train, normalizer_, b,
                           b.fine_tune_epochs, b.fine_tune_learning_rate, seed_ + 1'000'000, progress_);
    }
    return network.Store();
  }

  // What was packed is what is measured: it is read back from its file.
  StageRecord Packed(const StoredNetwork& stored, const std::string& name) {
    const auto file = folder_.File(Name(name + ".packed"));
    const PackedSize size = SavePacked(stored, file);
    StageRecord record = Measure(LoadPacked(file, Base()), name, size);
    record.content = FileSha256(file);
    return record;
  }

  StageRecord Measure(const StoredNetwork& stored, const std::string& name, const PackedSize& size) {
    Json facts = {{"stored_bytes", size.file}, {"float_bytes", size.float_file}, {"splits", Json::object()}};
    std::map<std::string, BayesEvaluation> judged;
    std::vector<torch::Tensor> parts;
    for (const Split& split : TestSplits()) {
      const Uncertainty uncertainty = Predict(stored, split.images.images, normalizer_, recipe_.bayes.draws, seed_, progress_,
                                              name + " on " + split.images.name);
      const auto [entry, fresh] = judged.emplace(split.role, Judge(uncertainty, split.images, split.role != kUnknown));
      const BayesEvaluation& e = entry->second;
      facts["splits"][split.role] = {{"accuracy", e.metrics.accuracy}, {"nll", e.metrics.nll},
                                     {"brier", e.metrics.brier},       {"ece", e.metrics.ece},
                                     {"total", e.total},               {"aleatoric", e.aleatoric},
                                     {"epistemic", e.epistemic}};
      parts.push_back(torch::stack({e.correct, e.labels, e.aleatoric_of, e.epistemic_of}));
    }
    const auto values = [&](const char* role, bool epistemic) {
      const torch::Tensor& tensor = epistemic ? judged.at(role).epistemic_of : judged.at(role).aleatoric_of;
      const torch::Tensor doubles = tensor.to(torch::kFloat64).contiguous();
      return std::vector<double>(doubles.data_ptr<double>(), doubles.data_ptr<double>() + doubles.numel());
    };
    facts["auroc_aleatoric"] = facts["auroc_epistemic"] = -1.0;
    if (judged.contains(kAmbiguous)) {
      facts["auroc_aleatoric"] = Auroc(values(kClean, false), values(kAmbiguous, false));
    }
    if (judged.contains(kUnknown)) {
      auto known = values(kClean, true);
      if (judged.contains(kAmbiguous)) {
        const auto more = values(kAmbiguous, true);
        known.insert(known.end(), more.begin(), more.end());
      }
      facts["auroc_epistemic"] = Auroc(known, values(kUnknown, true));
    }
    Json widths = Json::array();
    for (const StoredLayer& layer : stored.layers) {
      widths.push_back({layer.mean_grid.bits, layer.sigma_bits, layer.sample_grid.bits});
    }
    facts["widths"] = widths;
    WriteFileAtomically(folder_.File(Name(name + ".pt")), [&](const std::filesystem::path& temporary) {
      torch::save(parts, temporary.string());
    });
    return {.input = {}, .content = {}, .facts = facts.dump()};
  }

  BayesSeedResult Parsed(const StageRecord& record) const {
    const auto facts = Json::parse(record.facts);
    BayesSeedResult result;
    result.seed = seed_;
    result.stored_bytes = facts.at("stored_bytes").get<std::int64_t>();
    result.float_bytes = facts.at("float_bytes").get<std::int64_t>();
    result.auroc_aleatoric = facts.at("auroc_aleatoric").get<double>();
    result.auroc_epistemic = facts.at("auroc_epistemic").get<double>();
    for (const auto& [role, entry] : facts.at("splits").items()) {
      BayesMeasurement& m = result.splits[role];
      m.metrics = {entry.at("accuracy"), entry.at("nll"), entry.at("brier"), entry.at("ece")};
      m.total = entry.at("total");
      m.aleatoric = entry.at("aleatoric");
      m.epistemic = entry.at("epistemic");
    }
    for (const auto& w : facts.at("widths")) result.widths.push_back({w.at(0), w.at(1), w.at(2)});
    return result;
  }

  // Means and standard deviations with widths of their own, within the budget and the caps.
  BayesSeedResult PlanRow(const std::string& name) {
    const auto& b = recipe_.bayes;
    const std::string description = fmt::format(
        "{} {} {} {} {} {} {} {} {}", b.plan.average_bits, b.plan.accuracy_drop, b.plan.drift, b.sample_bits,
        b.activation_bits, DumpRecipeSection(recipe_, "allocate"), recipe_.quantizer.grid, recipe_.quantizer.granularity, b.draws);
    const std::string input = HashOf({"plan/2", FloatRecord().content, TestHash(), description, FineTuning()});
    return Parsed(Ensure(Name(name), input, {Name(name + ".packed"), Name(name + ".pt")}, [&]() -> StageRecord {
      auto options = recipe_.allocate;
      options.bits.erase(std::remove(options.bits.begin(), options.bits.end(), 0), options.bits.end());
      const auto problem =
          MeasureUnits(Reference(), Data().calibration.Head(std::min(kTableImages, Data().calibration.size())).images,
                       normalizer_, options.bits, "log", recipe_.quantizer, kTableDraws, seed_, progress_);
      double budget = b.plan.average_bits;
      std::vector<int> last;
      for (;; budget += kBudgetStep) {
        options.budget = {BudgetKind::kAverageBits, budget};
        const Allocation allocation = Allocate(problem, options, seed_, nullptr, progress_);
        const bool widest = budget >= options.bits.back();
        if (allocation.bits == last && !widest) continue;
        last = allocation.bits;
        auto widths = WidthsOf(allocation.bits);
        for (BayesWidths& w : widths) w.sample = Width(b.sample_bits, 4);
        const StoredNetwork stored = Quantized(widths, Width(b.activation_bits, 4), "log", "fine-tuned");
        const auto broken = BrokenCap(stored);
        if (broken.empty() || widest) {
          if (!broken.empty()) progress_.Warn(fmt::format("{}: {} even at {:g} bits", name, broken, budget));
          return Packed(stored, name);
        }
        progress_.Info(fmt::format("{}: {} at {:g} bits; the budget rises", name, broken, budget));
      }
    }));
  }

  // Of means and standard deviations, the mean over the seeds.
  double AverageBits(const BayesRow& row) {
    double bits = 0.0, parameters = 0.0;
    for (const auto& seed : row.seeds) {
      for (std::size_t l = 0; l < seed.widths.size(); ++l) {
        const auto weights = static_cast<double>(Base().layers[l].weights());
        bits += weights * (seed.widths[l].mean + seed.widths[l].sigma);
        parameters += 2.0 * weights;
      }
    }
    return bits / parameters;
  }

  // The cap that the network breaks on the calibration images; empty: none.
  std::string BrokenCap(const StoredNetwork& stored) {
    const auto& caps = recipe_.bayes.plan;
    if (caps.accuracy_drop >= 1.0 && caps.drift >= 1.0) return "";
    const DistinctImages images = Distinct(Data().calibration);
    const auto judged = [&](const StoredNetwork& network) {
      return Judge(Predict(network, images.images, normalizer_, recipe_.bayes.draws, seed_, progress_, "caps"), images);
    };
    const BayesEvaluation before = judged(Reference()), after = judged(stored);
    const double drop = before.metrics.accuracy - after.metrics.accuracy;
    if (drop > caps.accuracy_drop) return fmt::format("accuracy drops by {:.4f}", drop);
    const double aleatoric = std::abs(after.aleatoric / before.aleatoric - 1.0);
    const double epistemic = std::abs(after.epistemic / before.epistemic - 1.0);
    if (!(aleatoric <= caps.drift)) return fmt::format("aleatoric uncertainty changes by {:.1f} %", 100.0 * aleatoric);
    if (!(epistemic <= caps.drift)) return fmt::format("epistemic uncertainty changes by {:.1f} %", 100.0 * epistemic);
    return "";
  }

  // Per image, [4, images] a role: share correct, labels, aleatoric, epistemic.
  std::map<std::string, torch::Tensor> PerImage(std::uint64_t seed, const std::string& name) {
    std::vector<torch::Tensor> parts;
    torch::load(parts, folder_.File(fmt::format("seed-{}/{}.pt", seed, name)).string());
    std::map<std::string, torch::Tensor> by_role;
    std::size_t index = 0;
    for (const auto& [role, data] : Roles()) {
      by_role[role] = parts.at(index++);
      image_counts_[role] = by_role[role].size(1);
    }
    return by_role;
  }

  void Compare(const BayesRow& reference, BayesRow& row) {
    std::map<std::string, std::pair<torch::Tensor, torch::Tensor>> correct;  // sums over the seeds
    std::map<std::string, torch::Tensor> labels;
    for (std::size_t s = 0; s < row.seeds.size(); ++s) {
      const auto before = PerImage(row.seeds[s].seed, "float"), after = PerImage(row.seeds[s].seed, row.name);
      for (const auto& [role, values] : before) {
        auto& [sum_before, sum_after] = correct[role];
        sum_before = sum_before.defined() ? sum_before + values[0] : values[0];
        sum_after = sum_after.defined() ? sum_after + after.at(role)[0] : after.at(role)[0];
        labels[role] = values[1];
        const auto widen = [](std::map<std::string, double>& drifts, const std::string& key, double drift) {
          const auto [entry, fresh] = drifts.emplace(key, drift);
          if (!fresh && std::abs(drift) > std::abs(entry->second)) entry->second = drift;
        };
        const auto& f = reference.seeds[s].splits.at(role);
        const auto& q = row.seeds[s].splits.at(role);
        widen(row.aleatoric_drift, role, q.aleatoric / f.aleatoric - 1.0);
        widen(row.epistemic_drift, role, q.epistemic / f.epistemic - 1.0);
      }
    }
    const auto n = static_cast<double>(row.seeds.size());
    const auto drop = [&](const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& counts) {
      const ClusteredDrop d = CompareClustered(before / n, after / n, counts, kResamples, recipe_.seed);
      return BayesDrop{d.drop, d.ci_low, d.ci_high};
    };
    std::vector<torch::Tensor> before, after, counts;
    for (const char* role : {kClean, kAmbiguous}) {
      if (!correct.contains(role)) continue;
      row.drops[role] = drop(correct[role].first, correct[role].second, labels[role]);
      before.push_back(correct[role].first);
      after.push_back(correct[role].second);
      counts.push_back(labels[role]);
    }
    row.drops["all"] = drop(torch::cat(before), torch::cat(after), torch::cat(counts));
  }

  // The histograms: a joint row at four bits where there is one, fine-tuned where it is.
  void Picture(BayesComparison& comparison) {
    const BayesRow* chosen = nullptr;
    int best = -1;
    for (const BayesRow& row : comparison.rows) {
      if (row.scheme.empty()) continue;
      const int score = 4 * (row.scheme == "jq") + 2 * (row.bits == 4.0) + (row.stage == "fine-tuned");
      if (score > best) {
        best = score;
        chosen = &row;
      }
    }
    if (chosen == nullptr) return;
    comparison.pictured = chosen->name;
    const auto before = PerImage(recipe_.seed, "float"), after = PerImage(recipe_.seed, chosen->name);
    for (const auto& [role, data] : Roles()) {
      comparison.histograms.push_back({data, before.at(role)[2], before.at(role)[3], after.at(role)[2], after.at(role)[3]});
    }
    for (const auto& [role, count] : image_counts_) comparison.images[role] = count;
  }

  ProgressSink& progress_;
  Recipe recipe_;
  std::vector<std::filesystem::path> folders_;
  Normalizer normalizer_;
  RunFolder folder_;
  std::vector<StageStatus> statuses_;
  std::uint64_t seed_ = 1;
  std::optional<DataSplits> data_;
  std::vector<Split> splits_;
  std::string test_hash_;
  std::optional<Network> base_;
  std::optional<StoredNetwork> reference_;
  std::optional<StageRecord> float_record_;
  std::uint64_t float_seed_ = 0;
  torch::Tensor aleatoric_;  // of the float network of `aleatoric_seed_` about the training images
  std::uint64_t aleatoric_seed_ = 0;
  std::map<std::string, std::int64_t> image_counts_;
};

}  // namespace

BayesReport Bayes(const RecipeOptions& options, ProgressSink& progress) { return BayesRun(options, progress).Run(); }

}  // namespace bitplan::pipeline
