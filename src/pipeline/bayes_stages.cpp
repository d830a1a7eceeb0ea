#include "pipeline/bayes_stages.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bitplan/allocators/allocator.h"
#include "bitplan/bayes/learn.h"
#include "bitplan/bayes/unit_sensitivity.h"
#include "bitplan/bayes/variational_network.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/statistics.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/io/tables.h"
#include "bitplan/models/activations.h"
#include "bitplan/models/architectures.h"
#include "pipeline/checks.h"
#include "pipeline/data_hash.h"

namespace bitplan::pipeline {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr std::int64_t kFitImages = 1024;    // training images that activation steps are fitted to
constexpr std::int64_t kTableImages = 1024;  // calibration images of the table of widths
constexpr int kTableDraws = 8;
constexpr int kGroupDraws = 8;       // of the float network, for the groups in which uncertainty is held
constexpr int kPlanBits = 4;         // of a plan's drawn weights and activations, unless the recipe says
constexpr double kBudgetStep = 0.5;  // bits that a plan's budget rises by while a cap is broken
// Added to a network's seed: what is chosen meets other draws than what is measured.
constexpr std::uint64_t kFineTuningSeed = 1'000'000, kGroupSeed = 2'000'000, kTableSeed = 3'000'000,
                        kCapSeed = 4'000'000;

std::string HashOf(std::initializer_list<std::string_view> parts) {
  Sha256 hash;
  for (const auto part : parts) hash.Update(part);
  return hash.Hex();
}

bool Capped(const BayesPlanOptions& plan) { return plan.accuracy_drop < 1.0 || plan.drift < 1.0; }

int Width(int own, int common) { return own == 0 ? common : own > 8 ? kFloatBits : own; }

template <typename T>
void CheckList(const char* key, std::vector<T> values) {
  if (values.empty()) throw Error(ErrorKind::kUsage, fmt::format("bayes.{} is empty; give at least one", key));
  std::sort(values.begin(), values.end());
  const auto twice = std::adjacent_find(values.begin(), values.end());
  if (twice != values.end()) throw Error(ErrorKind::kUsage, fmt::format("bayes.{} holds {} twice", key, *twice));
}

void CheckOptions(const BayesOptions& options) {
  CheckList("bits", options.bits);
  CheckList("schemes", options.schemes);
  CheckList("stages", options.stages);
  CheckList("sigma_scales", options.sigma_scales);
  const std::pair<const char*, int> own[] = {{"mean_bits", options.mean_bits},
                                             {"sigma_bits", options.sigma_bits},
                                             {"sample_bits", options.sample_bits},
                                             {"activation_bits", options.activation_bits}};
  for (const auto& [key, bits] : own) {
    if (bits <= 8 || bits == kFloatBits) continue;
    throw Error(ErrorKind::kUsage, fmt::format("bayes.{} is {}; it must be 0 (as bayes.bits), 1..8 or 32", key, bits));
  }
}

std::vector<double> Doubles(const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.to(torch::kFloat64).contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

Recipe Checked(const RecipeOptions& options) {
  Recipe recipe = LoadRecipe(options.recipe, options.overrides);
  CheckNames(recipe);
  CheckOptions(recipe.bayes);
  const Allocator& allocator = FindAllocator(recipe.allocate.allocator);
  if (recipe.bayes.plan.average_bits > 0.0 && (allocator.needs_posterior || allocator.needs_oracle)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("bayes.plan: allocator {} needs more than a table of widths; take exact, "
                            "lagrangian, greedy or relaxed",
                            allocator.name));
  }
  if (const double budget = recipe.bayes.plan.average_bits; budget > 0.0) {
    int least = 0;
    for (const int bits : recipe.allocate.bits) least = least == 0 || (bits > 0 && bits < least) ? bits : least;
    if (least == 0) throw Error(ErrorKind::kUsage, "allocate.bits holds no width above 0, which bayes.plan needs");
    if (budget < least) {
      throw Error(ErrorKind::kInfeasible, fmt::format("bayes.plan.average_bits: {:g} is below {}, the least width of "
                                                      "allocate.bits; raise the budget or allow less",
                                                      budget, least));
    }
  }
  return recipe;
}

DataOptions Named(DataOptions options, const std::string& name) {
  options.name = name;
  return options;
}

}  // namespace

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
          row.name = fmt::format("{}-{}{}-{}", name, bits, row.sigma_scale == "linear" ? "-linear" : "", stage);
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

BayesSetup::BayesSetup(const RecipeOptions& options)
    : recipe(Checked(options)), folders{options.data, options.recipe.parent_path()}, normalizer(recipe.data) {
  const auto& bayes = recipe.bayes;
  for (const auto& [key, name] : {std::pair<const char*, const std::string&>{"clean", bayes.clean},
                                  {"ambiguous", bayes.ambiguous},
                                  {"out_of_distribution", bayes.out_of_distribution}}) {
    if (name.empty()) continue;
    try {
      (void)FindDatasetSource(name);
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("bayes.{}: {}", key, error.what()));
    }
  }
  const auto& file = bayes.from.empty() ? recipe.model.file : bayes.from;
  if (!file.empty()) model_file = FindInFolders(file, folders, "model file").string();
  model_name = file.empty() ? recipe.model.architecture : ModelNameOf(file);
  model_hash = file.empty() ? recipe.model.architecture : FileSha256(model_file);

  data = LoadData(recipe.data, folders, recipe.seed);
  if (data.train.size() == 0) throw Error(ErrorKind::kData, recipe.data.name + " has no training images");
  train_hash = DataHash(recipe, folders, false);
  auto module = file.empty() ? BuildArchitecture(recipe.model.architecture, recipe.seed) : LoadModule(model_file);
  SetDropout(module, 0.0);  // the draws of the weights are the noise
  base = WithActivation(DescribeNetwork(module, model_name, data.train.images.sizes().slice(1).vec()),
                        FindActivationFunction(bayes.activation));
  Sha256 tests;
  tests.Update(recipe.verify.split);
  if (recipe.data.noise > 0.0) tests.Update(fmt::format("noise {} {}", recipe.data.noise, recipe.seed));
  if (OnCalibration()) {
    tests.Update(train_hash);
    splits.push_back({kClean, Distinct(data.calibration)});
  } else {
    for (const auto& [role, name] : Roles()) {
      const auto& source = FindDatasetSource(name);
      const DataOptions named = Named(recipe.data, name);
      tests.Update(role).Update(name);
      for (const auto& test : source.files(named, folders).test) tests.Update(FileSha256(test));
      Dataset test = source.load(named, folders, recipe.seed).test;
      AddNoise(test, named, recipe.seed);
      if (test.images.sizes().slice(1) != data.train.images.sizes().slice(1)) {
        throw Error(
            ErrorKind::kData,
            fmt::format("bayes: {} has images of shape [{}], the network takes [{}]; name data sets of one shape",
                        test.name, fmt::join(test.images.sizes().slice(1), ", "),
                        fmt::join(data.train.images.sizes().slice(1), ", ")));
      }
      splits.push_back({role, Distinct(test)});
    }
  }
  test_hash = tests.Hex();
}

std::vector<std::pair<std::string, std::string>> BayesSetup::Roles() const {
  const auto& bayes = recipe.bayes;
  if (OnCalibration()) return {{kClean, recipe.data.name}};
  std::vector<std::pair<std::string, std::string>> roles = {
      {kClean, bayes.clean.empty() ? recipe.data.name : bayes.clean}};
  if (!bayes.ambiguous.empty()) roles.emplace_back(kAmbiguous, bayes.ambiguous);
  if (!bayes.out_of_distribution.empty()) roles.emplace_back(kUnknown, bayes.out_of_distribution);
  return roles;
}

Network BayesSetup::First(std::uint64_t seed) const {
  if (FromFile()) return base;
  Network network = base;
  network.module = CloneModule(base.module);
  const auto initial = BuildArchitecture(recipe.model.architecture, seed);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, value] : initial.named_parameters()) SetTensor(network.module, name, value.clone());
  return network;
}

StageRecord BayesFolder::Ensure(const std::string& stage, const std::string& input,
                                const std::vector<std::string>& files, const std::function<StageRecord()>& work) {
  ThrowIfInterrupted();
  {
    const std::lock_guard lock(mutex_);
    if (const auto record = folder_.Find(stage, input)) {
      statuses_.push_back({stage, true, record->seconds});
      return *record;
    }
    EnsureWritableFolder(folder_.File(stage).parent_path());
  }
  const auto start = Clock::now();
  StageRecord record = work();
  record.input = input;
  record.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::lock_guard lock(mutex_);
  folder_.Complete(stage, record, files);
  statuses_.push_back({stage, false, record.seconds});
  return record;
}

std::string BayesSeed::Name(const std::string& row) const { return fmt::format("seed-{}/{}", seed_, row); }

const BayesSeed::Reference& BayesSeed::FloatNetwork(ProgressSink& progress) {
  const std::lock_guard lock(mutex_);
  if (reference_) return *reference_;
  const auto& b = setup_.recipe.bayes;
  const std::string input = HashOf({"bayes/3", setup_.model_hash, setup_.train_hash,
                                    fmt::format("{} {} {} {} {} {} {} {}", b.activation, b.epochs, b.learning_rate,
                                                b.batch, b.prior_sigma, b.first_sigma, seed_, setup_.recipe.seed)});
  Reference reference;
  reference.record = folder_.Ensure(Name("float-network"), input, {Name("float.packed")}, [&] {
    VariationalNetwork network(setup_.First(seed_), b.first_sigma);
    (void)LearnBound(
        network, setup_.data.train, setup_.normalizer, b,
        {.epochs = b.epochs, .learning_rate = b.learning_rate, .warm_up = true, .training_mode = !setup_.FromFile()},
        seed_, progress);
    return Save(network.Store(), "float");
  });
  reference.stored = LoadPacked(folder_.File(Name("float.packed")), setup_.base);
  reference_ = std::move(reference);
  return *reference_;
}

const UncertaintyGroups& BayesSeed::TrainGroups(ProgressSink& progress) {
  const StoredNetwork& stored = FloatNetwork(progress).stored;
  const std::lock_guard lock(mutex_);
  if (reference_->groups.count == 0) {
    reference_->groups =
        GroupByUncertainty(stored, setup_.data.train, setup_.normalizer, kGroupDraws, seed_ + kGroupSeed, progress);
  }
  return reference_->groups;
}

std::string BayesSeed::FineTuning() const {
  const auto& b = setup_.recipe.bayes;
  return fmt::format("{} {} {} {}", b.fine_tune, b.fine_tune_epochs, b.fine_tune_learning_rate, b.batch);
}

BayesSeedResult BayesSeed::Float(ProgressSink& progress) {
  return Measured(FloatNetwork(progress).record, "float", progress);
}

BayesSeedResult BayesSeed::Row(const RowSpec& spec, ProgressSink& progress) {
  const auto& recipe = setup_.recipe;
  const std::string description =
      fmt::format("{} {} {} {} {} {} {} {}", spec.name, spec.widths.mean, spec.widths.sigma, spec.widths.sample,
                  spec.activation_bits, spec.sigma_scale, recipe.quantizer.granularity, recipe.quantizer.grid);
  const std::string input = HashOf({"row/4", FloatNetwork(progress).record.content, description,
                                    spec.stage == "fine-tuned" ? FineTuning() : std::string()});
  const auto record = folder_.Ensure(Name(spec.name + "-network"), input, {Name(spec.name + ".packed")}, [&] {
    const std::vector<BayesWidths> widths(setup_.base.layers.size(), spec.widths);
    return Save(Quantized(widths, spec.activation_bits, spec.sigma_scale, spec.stage, progress), spec.name);
  });
  return Measured(record, spec.name, progress);
}

StoredNetwork BayesSeed::Quantized(const std::vector<BayesWidths>& widths, int activation_bits,
                                   const std::string& sigma_scale, const std::string& stage, ProgressSink& progress) {
  const auto& b = setup_.recipe.bayes;
  const StoredNetwork& reference = FloatNetwork(progress).stored;
  const Dataset& train = setup_.data.train;
  const bool scratch = stage == "scratch";
  VariationalNetwork network =
      scratch ? VariationalNetwork(setup_.First(seed_), b.first_sigma) : VariationalNetwork(reference);
  network.Quantize(widths, sigma_scale.empty() ? "log" : sigma_scale, setup_.recipe.quantizer, seed_);
  if (activation_bits != kFloatBits) {
    const auto images = train.Head(std::min(kFitImages, train.size())).images;
    network.QuantizeActivations(activation_bits, setup_.normalizer.Apply(images), seed_);
  }
  const LearningSchedule fine = {.epochs = b.fine_tune_epochs, .learning_rate = b.fine_tune_learning_rate};
  const std::uint64_t fine_seed = seed_ + kFineTuningSeed;
  if (scratch) {
    (void)LearnBound(
        network, train, setup_.normalizer, b,
        {.epochs = b.epochs, .learning_rate = b.learning_rate, .warm_up = true, .training_mode = !setup_.FromFile()},
        seed_, progress);
  } else if (stage == "fine-tuned" && b.fine_tune == "bound") {
    (void)LearnBound(network, train, setup_.normalizer, b, fine, fine_seed, progress);
  } else if (stage == "fine-tuned") {
    const UncertaintyGroups* groups = b.fine_tune == "reference" ? &TrainGroups(progress) : nullptr;
    (void)LearnReference(network, reference, groups, train, setup_.normalizer, b, fine, fine_seed, progress);
  }
  return network.Store();
}

StageRecord BayesSeed::Save(const StoredNetwork& stored, const std::string& name) {
  const auto file = folder_.File(Name(name + ".packed"));
  const PackedSize size = SavePacked(stored, file);
  const Json facts = {{"stored_bytes", size.file}, {"float_bytes", size.float_file}};
  return {.input = {}, .content = FileSha256(file), .facts = facts.dump()};
}

BayesSeedResult BayesSeed::Plan(const std::string& name, ProgressSink& progress) {
  const auto& recipe = setup_.recipe;
  const auto& b = recipe.bayes;
  const Reference& reference = FloatNetwork(progress);
  auto options = recipe.allocate;
  options.bits.erase(std::remove(options.bits.begin(), options.bits.end(), 0), options.bits.end());
  const std::string table_input =
      HashOf({"table/2", reference.record.content, setup_.train_hash, fmt::format("{}", fmt::join(options.bits, " ")),
              recipe.quantizer.grid, recipe.quantizer.granularity});
  const auto table = folder_.Ensure(Name("table"), table_input, {Name("table.json")}, [&]() -> StageRecord {
    const Dataset& calibration = setup_.data.calibration;
    const auto problem = MeasureUnits(
        reference.stored, calibration.Head(std::min(kTableImages, calibration.size())).images, setup_.normalizer,
        options.bits, "log", recipe.quantizer, kTableDraws, seed_ + kTableSeed, progress);
    WriteFileAtomically(folder_.File(Name("table.json")), DumpProblem(problem));
    return {.input = {}, .content = FileSha256(folder_.File(Name("table.json"))), .facts = "{}"};
  });
  const std::string description =
      fmt::format("{} {} {} {} {} {}", b.plan.average_bits, b.plan.accuracy_drop, b.plan.drift, b.sample_bits,
                  b.activation_bits, Capped(b.plan) ? b.draws : 0);
  const std::string input =
      HashOf({"plan/5", table.content, description, DumpRecipeSection(recipe, "allocate"), FineTuning()});
  const auto record = folder_.Ensure(Name(name + "-network"), input, {Name(name + ".packed")}, [&] {
    const auto problem = ParseProblem(ReadFile(folder_.File(Name("table.json")), "table"), "table.json");
    std::vector<int> last;
    for (double budget = b.plan.average_bits;; budget += kBudgetStep) {
      options.budget = {BudgetKind::kAverageBits, budget};
      const Allocation allocation = Allocate(problem, options, seed_, nullptr, progress);
      const bool widest = budget >= options.bits.back();
      if (allocation.bits == last && !widest) continue;
      last = allocation.bits;
      auto widths = WidthsOf(allocation.bits);
      for (BayesWidths& w : widths) w.sample = Width(b.sample_bits, kPlanBits);
      const StoredNetwork stored =
          Quantized(widths, Width(b.activation_bits, kPlanBits), "log", "fine-tuned", progress);
      const auto broken = BrokenCap(stored, progress);
      if (broken.empty() || widest) {
        if (!broken.empty()) progress.Warn(fmt::format("{}: {} even at {:g} bits", Name(name), broken, budget));
        return Save(stored, name);
      }
      progress.Info(fmt::format("{}: {} at {:g} bits; the budget rises", Name(name), broken, budget));
    }
  });
  return Measured(record, name, progress);
}

std::string BayesSeed::BrokenCap(const StoredNetwork& stored, ProgressSink& progress) {
  const auto& caps = setup_.recipe.bayes.plan;
  if (!Capped(caps)) return "";
  const DistinctImages images = Distinct(setup_.data.calibration);
  const auto judged = [&](const StoredNetwork& network) {
    return Judge(Predict(network, images.images, setup_.normalizer, setup_.recipe.bayes.draws, seed_ + kCapSeed,
                         progress, "caps"),
                 images);
  };
  const BayesEvaluation before = judged(FloatNetwork(progress).stored), after = judged(stored);
  const double drop = before.metrics.accuracy - after.metrics.accuracy;
  if (!(drop <= caps.accuracy_drop))
    return fmt::format("accuracy drops by {:.4f} (cap {:g})", drop, caps.accuracy_drop);
  const double aleatoric = std::abs(after.aleatoric / before.aleatoric - 1.0);
  const double epistemic = std::abs(after.epistemic / before.epistemic - 1.0);
  const auto changes = [&](const char* what, double change) {
    return fmt::format("{} uncertainty changes by {:.1f} % (cap {:g} %)", what, 100.0 * change, 100.0 * caps.drift);
  };
  if (caps.drift < 1.0 && !(aleatoric <= caps.drift)) return changes("aleatoric", aleatoric);
  if (caps.drift < 1.0 && !(epistemic <= caps.drift)) return changes("epistemic", epistemic);
  return "";
}

BayesSeedResult BayesSeed::Measured(const StageRecord& network, const std::string& name, ProgressSink& progress) {
  const std::string input = HashOf({"measure/4", network.content, setup_.test_hash,
                                    std::to_string(setup_.recipe.bayes.draws), std::to_string(seed_)});
  // What was packed is what is measured: it is read back from its file.
  const auto record = folder_.Ensure(Name(name), input, {Name(name + ".pt")}, [&] {
    return Measure(LoadPacked(folder_.File(Name(name + ".packed")), setup_.base), name, progress);
  });
  const auto sizes = Json::parse(network.facts), facts = Json::parse(record.facts);
  BayesSeedResult result;
  result.seed = seed_;
  result.stored_bytes = sizes.at("stored_bytes").get<std::int64_t>();
  result.float_bytes = sizes.at("float_bytes").get<std::int64_t>();
  result.auroc_aleatoric = facts.at("auroc_aleatoric").get<double>();
  result.auroc_epistemic = facts.at("auroc_epistemic").get<double>();
  for (const auto& [role, entry] : facts.at("splits").items()) {
    BayesMeasurement& m = result.splits[role];
    m.metrics = {entry.at("accuracy"), entry.at("nll"), entry.at("brier"), entry.at("ece")};
    m.total = entry.at("total");
    m.aleatoric = entry.at("aleatoric");
    m.epistemic = entry.at("epistemic");
    m.aleatoric_without = entry.at("aleatoric_without").get<std::vector<double>>();
    m.epistemic_without = entry.at("epistemic_without").get<std::vector<double>>();
  }
  for (const auto& w : facts.at("widths")) result.widths.push_back({w.at(0), w.at(1), w.at(2)});
  return result;
}

StageRecord BayesSeed::Measure(const StoredNetwork& stored, const std::string& name, ProgressSink& progress) {
  Json facts = {{"splits", Json::object()}};
  std::map<std::string, BayesEvaluation> judged;
  std::vector<torch::Tensor> parts;
  for (const auto& split : setup_.splits) {
    const Uncertainty uncertainty = Predict(stored, split.images.images, setup_.normalizer, setup_.recipe.bayes.draws,
                                            seed_, progress, "measured on " + split.images.name);
    const auto [entry, fresh] = judged.emplace(split.role, Judge(uncertainty, split.images, split.role != kUnknown));
    const BayesEvaluation& e = entry->second;
    facts["splits"][split.role] = {{"accuracy", e.metrics.accuracy},
                                   {"nll", e.metrics.nll},
                                   {"brier", e.metrics.brier},
                                   {"ece", e.metrics.ece},
                                   {"total", e.total},
                                   {"aleatoric", e.aleatoric},
                                   {"epistemic", e.epistemic},
                                   {"aleatoric_without", e.aleatoric_without},
                                   {"epistemic_without", e.epistemic_without}};
    parts.push_back(torch::stack({e.correct, e.labels, e.aleatoric_of, e.epistemic_of}));
  }
  facts["auroc_aleatoric"] = facts["auroc_epistemic"] = -1.0;
  if (judged.contains(kAmbiguous)) {
    facts["auroc_aleatoric"] = Auroc(Doubles(judged[kClean].aleatoric_of), Doubles(judged[kAmbiguous].aleatoric_of));
  }
  if (judged.contains(kUnknown)) {
    auto known = Doubles(judged[kClean].epistemic_of);
    if (judged.contains(kAmbiguous)) {
      const auto more = Doubles(judged[kAmbiguous].epistemic_of);
      known.insert(known.end(), more.begin(), more.end());
    }
    facts["auroc_epistemic"] = Auroc(known, Doubles(judged[kUnknown].epistemic_of));
  }
  Json widths = Json::array();
  for (const StoredLayer& layer : stored.layers) {
    widths.push_back({layer.mean_grid.bits, layer.sigma_bits, layer.sample_grid.bits});
  }
  facts["widths"] = widths;
  WriteFileAtomically(folder_.File(Name(name + ".pt")),
                      [&](const std::filesystem::path& temporary) { torch::save(parts, temporary.string()); });
  return {.input = {}, .content = {}, .facts = facts.dump()};
}

std::map<std::string, torch::Tensor> LoadPerImage(const BayesSetup& setup, const std::filesystem::path& file) {
  std::vector<torch::Tensor> parts;
  torch::load(parts, file.string());
  std::map<std::string, torch::Tensor> by_role;
  for (std::size_t s = 0; s < setup.splits.size(); ++s) by_role[setup.splits[s].role] = parts.at(s);
  return by_role;
}

}  // namespace bitplan::pipeline
