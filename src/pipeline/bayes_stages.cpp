#include "pipeline/bayes_stages.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <tuple>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/bayes/learn.h"
#include "bitplan/bayes/unit_sensitivity.h"
#include "bitplan/bayes/variational_network.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/statistics.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/io/tables.h"
#include "io/json_text.h"
#include "pipeline/bayes_caps.h"
#include "pipeline/clock.h"
#include "pipeline/model_checks.h"

namespace bitplan::pipeline {
namespace {

using Json = nlohmann::ordered_json;

// Training images that activation steps are fitted to; as many as layers were looked for where only some images reach
// one.
constexpr std::int64_t kFitImages = 1024;
// Where fine-tuning of few bits begins, of the steps with the least squared error: finer steps, though they clip, keep
// more of the epistemic uncertainty about unseen images (docs/bayes.md).
constexpr int kCoarseBits = 4;
constexpr double kFirstStep = 0.7;
constexpr std::int64_t kTableImages = 1024;  // calibration images of the table of widths
constexpr int kTableDraws = 8;
constexpr int kGroupDraws = 8;       // of the float network, for the groups in which uncertainty is held
constexpr int kPlanBits = 4;         // of a plan's drawn weights and activations, unless the recipe says
constexpr double kBudgetStep = 0.5;  // bits that a plan's budget rises by while a cap is broken
// Added to a network's seed: what is chosen meets other draws than what is measured.
constexpr std::uint64_t kFineTuningSeed = 1'000'000, kGroupSeed = 2'000'000, kTableSeed = 3'000'000,
                        kCapSeed = 4'000'000, kTargetSeed = 5'000'000,
                        kConfirmSeed = 6'000'000;  // other draws than those that chose

// Infinity becomes null.
Json BoundedJson(const BayesCapCheck::Bounded& bounded) { return Json::array({bounded.value, bounded.at_most}); }

BayesCapCheck::Bounded BoundedOf(const Json& json) {
  return {json.at(0), json.at(1).is_null() ? std::numeric_limits<double>::infinity() : json.at(1).get<double>()};
}

bool Capped(const BayesPlanOptions& plan) { return plan.accuracy_drop < 1.0 || plan.drift < 1.0; }

std::vector<double> Doubles(const torch::Tensor& tensor) {
  const torch::Tensor values = tensor.to(torch::kFloat64).contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

}  // namespace

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
  record.seconds = SecondsSince(start);
  const std::lock_guard lock(mutex_);
  folder_.Complete(stage, record, files);
  statuses_.push_back({stage, false, record.seconds});
  return record;
}

std::string BayesSeed::Name(const std::string& row) const { return fmt::format("seed-{}/{}", seed_, row); }

std::shared_ptr<const BayesData> BayesSeed::Data() {
  const std::lock_guard lock(data_mutex_);
  auto data = data_.lock();
  if (!data) data_ = data = setup_.Data(seed_);
  return data;
}

const BayesSeed::Reference& BayesSeed::FloatNetwork(ProgressSink& progress) {
  const std::lock_guard lock(mutex_);
  if (reference_) return *reference_;
  const auto& b = setup_.recipe.bayes;
  const std::string input =
      Sha256OfParts({"bayes/3", setup_.model_hash, setup_.train_hash,
                     fmt::format("{} {} {} {} {} {} {} {}", b.activation, b.epochs, b.learning_rate, b.batch,
                                 b.prior_sigma, b.first_sigma, seed_, seed_)});
  Reference reference;
  reference.record = folder_.Ensure(Name("float-network"), input, {Name("float.packed")}, [&] {
    VariationalNetwork network(setup_.First(seed_), b.first_sigma);
    const auto data = Data();
    (void)LearnBound(
        network, data->data.train, setup_.normalizer, b,
        {.epochs = b.epochs, .learning_rate = b.learning_rate, .warm_up = true, .training_mode = !setup_.is_trained},
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
    const auto data = Data();
    reference_->groups =
        GroupByUncertainty(stored, data->data.train, setup_.normalizer, kGroupDraws, seed_ + kGroupSeed, progress);
  }
  return reference_->groups;
}

const UncertaintyTarget& BayesSeed::Target(const Dataset& images, ProgressSink& progress) {
  const StoredNetwork& stored = FloatNetwork(progress).stored;
  const std::lock_guard lock(mutex_);
  const auto found = reference_->targets.find(images.size());
  if (found != reference_->targets.end()) return found->second;
  return reference_->targets
      .try_emplace(images.size(), stored, images, setup_.normalizer, seed_ + kTargetSeed, progress)
      .first->second;
}

std::string BayesSeed::FineTuning() const {
  const auto& b = setup_.recipe.bayes;
  return fmt::format("fine-tuning/8 {} {} {} {}", b.fine_tune, b.fine_tune_epochs, b.fine_tune_learning_rate, b.batch);
}

BayesSeedResult BayesSeed::Float(ProgressSink& progress) {
  return Measured(FloatNetwork(progress).record, "float", progress);
}

BayesSeedResult BayesSeed::Row(const RowSpec& spec, ProgressSink& progress) {
  const auto& recipe = setup_.recipe;
  const std::string description =
      fmt::format("{} {} {} {} {} {} {} {}", spec.name, spec.widths.mean, spec.widths.sigma, spec.widths.sample,
                  spec.activation_bits, spec.sigma_scale, recipe.quantizer.granularity, recipe.quantizer.grid);
  const std::string input = Sha256OfParts({"row/7", FloatNetwork(progress).record.content, description,
                                           spec.stage == "fine-tuned" ? FineTuning() : std::string(),
                                           spec.stage == "fine-tuned" ? setup_.train_hash : std::string()});
  const auto record = folder_.Ensure(Name(spec.name + "-network"), input, {Name(spec.name + ".packed")}, [&] {
    const std::vector<BayesWidths> widths(setup_.base.layers.size(), spec.widths);
    const auto data = Data();
    return Save(Quantized(widths, spec.activation_bits, spec.sigma_scale, spec.stage, data->data.train,
                          data->data.calibration, progress),
                spec.name);
  });
  return Measured(record, spec.name, progress);
}

StoredNetwork BayesSeed::Quantized(const std::vector<BayesWidths>& widths, int activation_bits,
                                   const std::string& sigma_scale, const std::string& stage, const Dataset& train,
                                   const Dataset& calibration, ProgressSink& progress) {
  const auto& b = setup_.recipe.bayes;
  const StoredNetwork& reference = FloatNetwork(progress).stored;
  const bool scratch = stage == "scratch";
  VariationalNetwork network =
      scratch ? VariationalNetwork(setup_.First(seed_), b.first_sigma) : VariationalNetwork(reference);
  network.Quantize(widths, sigma_scale.empty() ? "log" : sigma_scale, setup_.recipe.quantizer, seed_);
  const bool tuned = stage == "fine-tuned", follows = tuned && b.fine_tune == "reference";
  if (activation_bits != kFloatBits) {
    const auto wanted = setup_.base.has_rare_layers ? kDescribingImages : kFitImages;
    const auto images = train.Head(std::min(wanted, train.size())).images;
    network.QuantizeActivations(activation_bits, setup_.normalizer.Apply(images), seed_,
                                follows && activation_bits <= kCoarseBits ? kFirstStep : 1.0);
  }
  const bool control = activation_bits == kFloatBits &&
                       std::ranges::all_of(widths, [](const BayesWidths& w) { return w == BayesWidths{}; });
  const LearningSchedule fine = {
      .epochs = b.fine_tune_epochs, .learning_rate = b.fine_tune_learning_rate, .always_teach = control};
  const std::uint64_t fine_seed = seed_ + kFineTuningSeed;
  if (scratch) {
    (void)LearnBound(
        network, train, setup_.normalizer, b,
        {.epochs = b.epochs, .learning_rate = b.learning_rate, .warm_up = true, .training_mode = !setup_.is_trained},
        seed_, progress);
  } else if (tuned && b.fine_tune == "bound") {
    (void)LearnBound(network, train, setup_.normalizer, b, fine, fine_seed, progress);
  } else if (tuned) {
    const UncertaintyGroups* groups = follows ? &TrainGroups(progress) : nullptr;
    (void)LearnReference(network, reference, groups, train, setup_.normalizer, b, fine, fine_seed, progress);
  }
  StoredNetwork stored = network.Store();
  if (follows && calibration.size() > 0) {
    (void)CalibrateUncertainty(stored, Target(calibration, progress), progress);
  }
  return stored;
}

StageRecord BayesSeed::Save(const StoredNetwork& stored, const std::string& name) {
  const auto file = folder_.File(Name(name + ".packed"));
  PackedSize size;
  folder_.Write(Name(name + ".packed"),
                [&](const std::filesystem::path& temporary) { size = SavePacked(stored, temporary); });
  const Json facts = {{"stored_bytes", size.file}, {"float_bytes", size.float_file}};
  return {.input = {}, .content = FileSha256(file), .facts = JsonText(facts)};
}

BayesSeedResult BayesSeed::Plan(const std::string& name, ProgressSink& progress) {
  const auto& recipe = setup_.recipe;
  const auto& b = recipe.bayes;
  const Reference& reference = FloatNetwork(progress);
  auto options = recipe.allocate;
  options.bits.erase(std::remove(options.bits.begin(), options.bits.end(), 0), options.bits.end());
  const std::string table_input = Sha256OfParts({"table/3", reference.record.content, setup_.train_hash,
                                                 fmt::format("{}", fmt::join(options.bits, " ")), recipe.quantizer.grid,
                                                 recipe.quantizer.granularity});
  const auto table = folder_.Ensure(Name("table"), table_input, {Name("table.json")}, [&]() -> StageRecord {
    const auto data = Data();
    const Dataset& calibration = data->data.calibration;
    const auto problem =
        MeasureUnits(reference.stored, calibration.Head(std::min(kTableImages, calibration.size())).images,
                     setup_.normalizer, options.bits, "log", recipe.quantizer, kTableDraws, seed_ + kTableSeed,
                     progress, [&](std::int64_t image) { return calibration.ImageName(image); });
    folder_.Write(Name("table.json"), [&](const std::filesystem::path& temporary) {
      WriteFileAtomically(temporary, DumpProblem(problem));
    });
    return {.input = {}, .content = FileSha256(folder_.File(Name("table.json"))), .facts = "{}"};
  });
  const bool capped = Capped(b.plan);
  const std::string description =
      fmt::format("{} {} {} {} {} {} {} {}", b.plan.average_bits, b.plan.accuracy_drop, b.plan.drift, b.sample_bits,
                  b.activation_bits, capped ? b.draws : 0, recipe.quantizer.granularity, recipe.quantizer.grid);
  Recipe asked = recipe;
  asked.allocate.draws = AllocateOptions{}.draws;  // no confidence is stated here
  const std::string input = Sha256OfParts({"plan/11", reference.record.content, table.content, description,
                                           DumpRecipeSection(asked, "allocate"), FineTuning(), setup_.train_hash});
  const auto record = folder_.Ensure(Name(name + "-network"), input, {Name(name + ".packed")}, [&] {
    const auto problem = ParseProblem(ReadFile(folder_.File(Name("table.json")), "table"), "table.json");
    // What is fitted to images is not judged on them, and those that choose a budget do not confirm it.
    const auto data = Data();
    Dataset fitted = data->data.calibration, judged, confirming;
    Json checked = Json::array();
    if (capped) {
      std::tie(fitted, judged) = Halves(data->data.calibration);
      std::tie(judged, confirming) = Halves(judged);
      if (fitted.size() == 0 || judged.size() == 0 || confirming.size() == 0) {
        throw Error(ErrorKind::kUsage,
                    fmt::format("caps of a plan fit, choose and confirm on parts of {}, which has {}: "
                                "give data.calibration more images, or leave out bayes.plan's caps",
                                data->data.calibration.name, Counted(data->data.calibration.size(), "row")));
      }
    }
    std::vector<int> last;
    for (double budget = b.plan.average_bits;; budget += kBudgetStep) {
      options.budget = {AverageBits(), budget};
      const Allocation allocation = Allocate(problem, options, seed_, nullptr, progress);
      const bool widest = budget >= options.bits.back();
      if (allocation.bits == last && !widest) continue;
      last = allocation.bits;
      auto widths = WidthsOf(allocation.bits);
      for (BayesWidths& w : widths) w.sample = Width(b.sample_bits, kPlanBits);
      const StoredNetwork stored = Quantized(widths, Width(b.activation_bits, kPlanBits), "log", "fine-tuned",
                                             data->data.train, fitted, progress);
      // The first cap that images break; every check is kept for the report.
      const auto broken_on = [&](const Dataset& images, bool confirms) {
        const auto checks = Caps(stored, images, confirms ? kConfirmSeed : kCapSeed, progress);
        for (const BayesCapCheck& check : checks) {
          checked.push_back({{"budget", budget},
                             {"confirming", confirms},
                             {"kind", check.kind},
                             {"images", check.images},
                             {"accuracy_drop", BoundedJson(check.accuracy_drop)},
                             {"aleatoric_drift", BoundedJson(check.aleatoric_drift)},
                             {"epistemic_drift", BoundedJson(check.epistemic_drift)}});
        }
        return BrokenCap(checks, b.plan);
      };
      const auto broken = capped ? broken_on(judged, false) : std::string();
      if (broken.empty() || widest) {
        if (!broken.empty()) {
          progress.Warn(fmt::format("{}: {} even at {}", Name(name), broken, Quantity(budget, "bit")));
        }
        if (capped && broken.empty()) {
          const auto missed = broken_on(confirming, true);
          if (!missed.empty()) {
            progress.Warn(fmt::format("{}: images that chose no budget do not confirm the caps at {}: {}", Name(name),
                                      Quantity(budget, "bit"), missed));
          }
        }
        StageRecord saved = Save(stored, name);
        Json facts = Json::parse(saved.facts);
        facts["caps"] = std::move(checked);
        saved.facts = JsonText(facts);
        return saved;
      }
      progress.Info(fmt::format("{}: {} at {}; the budget rises", Name(name), broken, Quantity(budget, "bit")));
    }
  });
  return Measured(record, name, progress);
}

std::vector<BayesCapCheck> BayesSeed::Caps(const StoredNetwork& stored, const Dataset& held_out, std::uint64_t draws,
                                           ProgressSink& progress) {
  const DistinctImages images = Distinct(held_out);
  const auto judged = [&](const StoredNetwork& network) {
    return Judge(
        Predict(network, images, setup_.normalizer, setup_.recipe.bayes.draws, seed_ + draws, progress, "caps"),
        images);
  };
  return CheckCaps(judged(FloatNetwork(progress).stored), judged(stored), images.Repeated());
}

BayesSeedResult BayesSeed::Measured(const StageRecord& network, const std::string& name, ProgressSink& progress) {
  const std::string input = Sha256OfParts({"measure/7", network.content, setup_.TestHash(seed_),
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
  result.auroc = facts.at("auroc").get<std::map<std::string, double>>();
  for (const auto& entry : sizes.value("caps", Json::array())) {
    result.caps.push_back({.budget = entry.at("budget"),
                           .confirming = entry.at("confirming"),
                           .kind = entry.at("kind"),
                           .images = entry.at("images"),
                           .accuracy_drop = BoundedOf(entry.at("accuracy_drop")),
                           .aleatoric_drift = BoundedOf(entry.at("aleatoric_drift")),
                           .epistemic_drift = BoundedOf(entry.at("epistemic_drift"))});
  }
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
  const auto data = Data();
  Json facts = {{"splits", Json::object()}, {"auroc", Json::object()}};
  std::map<std::string, BayesEvaluation> judged;
  std::vector<torch::Tensor> parts;
  for (const auto& split : data->splits) {
    const Uncertainty uncertainty = Predict(stored, split.images, setup_.normalizer, setup_.recipe.bayes.draws, seed_,
                                            progress, "measured on " + split.images.name);
    const auto [entry, fresh] = judged.emplace(split.role, Judge(uncertainty, split.images, !IsUnknown(split.role)));
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
  auto known = Doubles(judged[kClean].epistemic_of);
  if (judged.contains(kAmbiguous)) {
    facts["auroc"][kAmbiguous] = Auroc(Doubles(judged[kClean].aleatoric_of), Doubles(judged[kAmbiguous].aleatoric_of));
    const auto more = Doubles(judged[kAmbiguous].epistemic_of);
    known.insert(known.end(), more.begin(), more.end());
  }
  for (const auto& [role, evaluation] : judged) {
    if (IsUnknown(role)) facts["auroc"][role] = Auroc(known, Doubles(evaluation.epistemic_of));
  }
  Json widths = Json::array();
  for (const StoredLayer& layer : stored.layers) {
    widths.push_back({layer.mean_grid.bits, layer.sigma_bits, layer.sample_grid.bits});
  }
  facts["widths"] = widths;
  folder_.Write(Name(name + ".pt"), [&](const std::filesystem::path& temporary) {
    std::ostringstream bytes;  // LibTorch's own writer of files aborts when the disk is full
    torch::save(parts, bytes);
    WriteFileAtomically(temporary, std::move(bytes).str());
  });
  return {.input = {}, .content = {}, .facts = JsonText(facts)};
}

std::map<std::string, torch::Tensor> LoadPerImage(const BayesSetup& setup, const std::filesystem::path& file) {
  std::vector<torch::Tensor> parts;
  torch::load(parts, file.string());
  std::map<std::string, torch::Tensor> by_role;
  const auto& splits = setup.first->splits;
  for (std::size_t s = 0; s < splits.size(); ++s) by_role[splits[s].role] = parts.at(s);
  return by_role;
}

}  // namespace bitplan::pipeline
