#include "pipeline/bayes_setup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <optional>

#include "bitplan/allocators/allocator.h"
#include "bitplan/bayes/activations.h"
#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/models/architectures.h"
#include "bitplan/pipeline/run_folder.h"
#include "pipeline/checks.h"
#include "pipeline/data_hash.h"
#include "pipeline/model_checks.h"
#include "pipeline/trained_model.h"

namespace bitplan::pipeline {
namespace {

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
  if (!options.out_of_distribution.empty()) CheckList("out_of_distribution", options.out_of_distribution);
  const std::pair<const char*, int> own[] = {{"mean_bits", options.mean_bits},
                                             {"sigma_bits", options.sigma_bits},
                                             {"sample_bits", options.sample_bits},
                                             {"activation_bits", options.activation_bits}};
  for (const auto& [key, bits] : own) {
    if (bits <= 8 || bits == kFloatBits) continue;
    throw Error(ErrorKind::kUsage, fmt::format("bayes.{} is {}; it must be 0 (as bayes.bits), 1..8 or 32", key, bits));
  }
}

Recipe Checked(const RecipeOptions& options) {
  Recipe recipe = LoadRecipe(options.recipe, options.overrides, [](const Recipe& read) {
    RequireClassification(read, "bitplan bayes");
    CheckNames(read);
  });
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

bool IsUnknown(const std::string& role) { return role.starts_with(kUnknown); }

int Width(int own, int common) { return own == 0 ? common : own > 8 ? kFloatBits : own; }

std::vector<RowSpec> Rows(const BayesOptions& options) {
  std::vector<RowSpec> rows;
  const bool tuned = std::ranges::find(options.stages, "fine-tuned") != options.stages.end();
  if (tuned && options.control && options.fine_tune != "draws") {
    rows.push_back({.name = kControl,
                    .scheme = "float",
                    .stage = "fine-tuned",
                    .sigma_scale = "",
                    .bits = kFloatBits,
                    .widths = {},
                    .activation_bits = kFloatBits});
  }
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
  std::vector<std::pair<const char*, std::string>> named = {{"clean", bayes.clean}, {"ambiguous", bayes.ambiguous}};
  for (const std::string& name : bayes.out_of_distribution) named.emplace_back("out_of_distribution", name);
  for (const auto& [key, name] : named) {
    if (name.empty()) continue;
    try {
      (void)FindDatasetSource(name);
    } catch (const Error& error) {
      throw Error(error.kind(), fmt::format("bayes.{}: {}", key, error.what()));
    }
  }
  ModelOptions model = recipe.model;
  if (!bayes.from.empty()) model = {.architecture = {}, .file = bayes.from, .weights = {}};
  is_trained = model.is_trained();
  const auto trained = is_trained ? std::optional(LoadTrainedModel(model, folders, recipe.seed)) : std::nullopt;
  model_name = trained ? trained->name : model.architecture;
  model_hash = trained ? trained->hash : model.architecture;

  auto loaded = std::make_shared<BayesData>();
  loaded->data = LoadData(recipe.data, folders, recipe.seed);
  const DataSplits& data = loaded->data;
  for (const Dataset* split : {&data.train, &data.calibration, &data.test}) RequireLabels(*split, "bitplan bayes");
  const auto fewer = FewerCalibration(recipe.data, data.calibration.size(), data.train.RowWord());
  if (!fewer.empty()) warnings.push_back(fewer);
  if (data.train.size() == 0) throw Error(ErrorKind::kData, recipe.data.name + " has no training images");
  if (data.train.images.dim() != 4) {
    throw Error(ErrorKind::kData,
                fmt::format("bayes: fine-tuning distorts images [N, C, H, W], but {} holds arrays of {} "
                            "dimensions",
                            data.train.name, data.train.images.dim()));
  }
  train_hash = DataHash(recipe, folders, false);
  const auto shape = data.train.images.sizes().slice(1).vec();
  Network described;
  if (!trained) {
    auto module = BuildArchitecture(recipe.model.architecture, recipe.seed);
    SetDropout(module, 0.0);  // the draws of the weights are the noise
    described = DescribeNetwork(module, model_name, shape);
  } else {
    described = DescribeNetwork(trained->module, model_name, shape, DescribingImages(data.train, normalizer));
  }
  if (described.input_type != torch::kFloat) {
    throw Error(ErrorKind::kData, fmt::format("bayes: model {} takes integers, but fine-tuning blends and distorts "
                                              "images; give a model whose inputs are floats",
                                              model_name));
  }
  if (described.has_rare_layers) model_hash += " rare layers";  // which earlier versions left in float
  base = WithActivation(described, FindActivationFunction(bayes.activation));
  const auto fit = CheckModelFits(base, data.train, {&data.calibration}, normalizer, recipe.model.answers_may_vary);
  if (!fit.note.empty()) warnings.push_back(fit.note);
  outputs_ = fit.outputs;
  loaded->splits = Splits(data, recipe.seed);
  for (const auto& [role, name] : Roles()) {
    auto& digests = test_digests_.emplace_back();
    if (OnCalibration()) break;
    for (const auto& test : FindDatasetSource(name).files(Named(recipe.data, name), folders).test) {
      digests.push_back(FileSha256(test));
    }
    if (recipe.data.calibration_from == "test" && name != recipe.data.name && !IsUnknown(role)) {
      warnings.push_back(fmt::format(
          "data.calibration_from: test takes the calibration images off {}, but {} is measured whole: what is chosen "
          "on these images is measured on them too if {} holds them",
          recipe.data.name, name, name));
    }
  }
  first = std::move(loaded);
}

std::vector<BayesData::Split> BayesSetup::Splits(const DataSplits& data, std::uint64_t seed) const {
  std::vector<BayesData::Split> splits;
  if (OnCalibration()) {
    splits.push_back({kClean, Distinct(data.calibration)});
    return splits;
  }
  for (const auto& [role, name] : Roles()) {
    const DataOptions named = Named(recipe.data, name);
    Dataset test;
    if (recipe.data.calibration_from == "test" && name == recipe.data.name) {
      test = data.test;  // without the calibration images
    } else {
      test = FindDatasetSource(name).load(named, folders, seed).test;
      AddNoise(test, named, seed);
    }
    if (test.size() == 0) throw Error(ErrorKind::kData, fmt::format("bayes: {} has no test images", name));
    if (test.images.sizes().slice(1) != data.train.images.sizes().slice(1)) {
      throw Error(ErrorKind::kData,
                  fmt::format("bayes: {} has images of shape [{}], the network takes [{}]; name data sets of one shape",
                              test.name, fmt::join(test.images.sizes().slice(1), ", "),
                              fmt::join(data.train.images.sizes().slice(1), ", ")));
    }
    if (!IsUnknown(role)) CheckLabelsWithin(test, outputs_, "model " + model_name);
    splits.push_back({role, Distinct(test)});
  }
  return splits;
}

bool BayesSetup::SameImages() const { return !OnCalibration() && recipe.data.calibration_from != "test"; }

std::shared_ptr<const BayesData> BayesSetup::Data(std::uint64_t seed) const {
  if (seed == recipe.seed) return first;
  auto loaded = std::make_shared<BayesData>();
  loaded->data = LoadData(recipe.data, folders, seed);
  loaded->data.test = {};
  loaded->splits = SameImages() && !(recipe.data.noise > 0.0) ? first->splits : Splits(loaded->data, seed);
  return loaded;
}

std::string BayesSetup::TestHash(std::uint64_t seed) const {
  Sha256 tests;
  tests.Update(recipe.verify.split);
  if (recipe.data.noise > 0.0) tests.Update(fmt::format("noise {} {}", recipe.data.noise, seed));
  if (OnCalibration()) return tests.Update(train_hash).Hex();
  const auto roles = Roles();
  for (std::size_t r = 0; r < roles.size(); ++r) {
    tests.Update(roles[r].first).Update(roles[r].second);
    for (const auto& digest : test_digests_[r]) tests.Update(digest);
    if (recipe.data.calibration_from == "test" && roles[r].second == recipe.data.name) tests.Update(train_hash);
  }
  return tests.Hex();
}

std::vector<std::pair<std::string, std::string>> BayesSetup::Roles() const {
  const auto& bayes = recipe.bayes;
  if (OnCalibration()) return {{kClean, recipe.data.name}};
  std::vector<std::pair<std::string, std::string>> roles = {
      {kClean, bayes.clean.empty() ? recipe.data.name : bayes.clean}};
  if (!bayes.ambiguous.empty()) roles.emplace_back(kAmbiguous, bayes.ambiguous);
  for (std::size_t i = 0; i < bayes.out_of_distribution.size(); ++i) {
    roles.emplace_back(i == 0 ? kUnknown : fmt::format("{}-{}", kUnknown, i + 1), bayes.out_of_distribution[i]);
  }
  return roles;
}

Network BayesSetup::First(std::uint64_t seed) const {
  if (is_trained) return base;
  Network network = base;
  network.module = CloneModule(base.module);
  const auto initial = BuildArchitecture(recipe.model.architecture, seed);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, value] : initial.named_parameters()) SetTensor(network.module, name, value.clone());
  return network;
}

}  // namespace bitplan::pipeline
