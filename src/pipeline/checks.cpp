#include "pipeline/checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/data/augment.h"
#include "bitplan/data/dataset.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/models/architectures.h"
#include "bitplan/pipeline/names.h"
#include "bitplan/posterior/posterior.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "io/json_text.h"
#include "pipeline/plan_parts.h"

namespace bitplan::pipeline {
namespace {

// Names that bitplan writes in an output folder whatever the recipe; model.pt it writes only where no model is given.
bool IsOutputName(const std::string& name) {
  static const std::set<std::string> fixed = {".lock",      "manifest.json", kPlanFile,          kNetworkFile,
                                              kCodesFile,   "report.html",   "compare.csv",      "compare.json",
                                              "bayes.json", "bayes.csv",     "model.checkpoint", "curve.csv",
                                              "curve.json", "curve.html",    "activations.json", "equalized.pt"};
  if (fixed.count(name) > 0) return true;
  for (const auto& exporter : Exporters()) {
    if (name == exporter.file || name == SecondFile(exporter, exporter.file)) return true;
  }
  const std::filesystem::path path = name;
  const auto stage = path.stem().string().substr(0, path.stem().string().find('-'));
  const auto kind = path.extension();
  if (stage == "sensitivity" || stage == "activations") return kind == ".json" || kind == ".pt";
  return ((stage == "posterior" || stage == "fits" || stage == "labels") && kind == ".pt") ||
         (stage == "draws" && kind == ".json");
}

template <typename Entries>
std::vector<std::string> NamesOf(const Entries& entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) names.emplace_back(entry.name);
  return names;
}

// Values of quantizer.exportable.
std::vector<std::string> NamesOfFormats() {
  auto names = NamesOf(Exporters());
  names.emplace_back(kNoFormat);
  return names;
}

void CheckActivationBits(const std::vector<int>& bits) {
  for (const int width : bits) {
    if (width > 8 && width != 16) {
      throw Error(ErrorKind::kUsage,
                  "allocate.activation_bits is " + std::to_string(width) + "; it must be in 2..8, or 16");
    }
  }
}

}  // namespace

RecipeNames KnownNames() {
  const auto data = NamesOf(DatasetSources()), allocators = NamesOf(bitplan::Allocators());
  return {{"model.architecture", NamesOf(Architectures())},
          {"data.name", data},
          {"data.task", NamesOf(Likelihoods())},
          {"quantizer.exportable", NamesOfFormats()},
          {"train.augment", NamesOf(Augmentations())},
          {"posterior.estimator", NamesOf(PosteriorEstimators())},
          {"sensitivity.metric", NamesOf(SensitivityMetrics())},
          {"allocate.allocator", allocators},
          {"compare.allocators", allocators},
          {"bayes.clean", data},
          {"bayes.ambiguous", data},
          {"bayes.out_of_distribution", data}};
}

void CheckNames(const Recipe& recipe) {
  if (recipe.quantizer.range_sweeps > 0 && recipe.quantizer.activation_sums == "rounded") {
    throw Error(ErrorKind::kUsage,
                "quantizer.range_sweeps and activation_sums: rounded do not go together: terms of a sum would keep the "
                "levels that a range had before; set one of them to its default");
  }
  const bool brings_model = recipe.model.is_trained() || !recipe.bayes.from.empty();
  if (!brings_model || !recipe.model.architecture.empty()) {
    (void)FindArchitecture(recipe.model.architecture);
    for (const auto& name : recipe.train.augment) (void)FindAugmentation(name);
  }
  (void)FindPosteriorEstimator(recipe.posterior.estimator);
  (void)FindSensitivityMetric(recipe.sensitivity.metric);
  (void)FindAllocator(recipe.allocate.allocator);
  for (const auto& name : recipe.compare.allocators) (void)FindAllocator(name);
  for (const auto& name : recipe.compare.pairs) (void)ParseFormat(name, "compare.pairs");
  (void)FindDatasetSource(recipe.data.name);
  const auto& format = recipe.quantizer.exportable;
  const auto formats = NamesOfFormats();
  if (!format.empty() && std::find(formats.begin(), formats.end(), format) == formats.end()) {
    throw Error(ErrorKind::kUsage, UnknownNameMessage("quantizer.exportable", format, formats));
  }
  CheckActivationBits(recipe.allocate.activation_bits);
  if (recipe.allocate.latency.empty() && recipe.allocate.budget.Find(Latency()) != nullptr) {
    throw Error(ErrorKind::kUsage,
                "allocate.budget.latency needs the times of the layers: name a table in allocate.latency");
  }
  if (recipe.data.task.empty()) return;
  (void)FindLikelihood(recipe.data.task);
  if (!brings_model) RequireClassification(recipe, "training of model.architecture");
}

Recipe LoadCheckedRecipe(const RecipeOptions& options) {
  Recipe recipe = LoadRecipe(options.recipe, options.overrides, CheckNames);
  if (recipe.data.task == Classification().name()) recipe.data.task.clear();  // the same recipe
  if (recipe.quantizer.exportable == kNoFormat) recipe.quantizer.exportable.clear();
  return recipe;
}

void RequireClassification(const Recipe& recipe, const std::string& command) {
  if (recipe.data.task.empty() || recipe.data.task == Classification().name()) return;
  throw Error(ErrorKind::kUsage, command + " is for classification, and data.task is " + recipe.data.task +
                                     ": plan a model.file of that task with `bitplan run`");
}

void RequireOneActivationWidth(const Recipe& recipe, const std::string& what) {
  if (recipe.allocate.activation_bits.size() < 2) return;
  throw Error(ErrorKind::kUsage, "allocate.activation_bits has several widths, among which run and allocate choose; " +
                                     what + " needs one of them");
}

void RequirePair(const Format& pair, const AllocateOptions& options) {
  const auto require = [&](const std::vector<int>& widths, int width, const char* key) {
    if (std::find(widths.begin(), widths.end(), width) != widths.end()) return;
    throw Error(ErrorKind::kUsage, fmt::format("{} asks for {} bits, and {} has {}", FormatName(pair), width, key,
                                               fmt::join(widths, ", ")));
  };
  require(options.bits, pair.weights, "allocate.bits");
  require(options.activation_bits, pair.activations, "allocate.activation_bits");
}

std::filesystem::path FindInFolders(const std::string& file, const std::vector<std::filesystem::path>& folders,
                                    const std::string& what) {
  std::vector<std::string> tried;
  for (const auto& folder : folders) {
    const auto candidate = folder / file;  // an absolute `file` replaces the folder
    if (std::filesystem::exists(candidate)) return candidate;
    if (std::find(tried.begin(), tried.end(), candidate.string()) == tried.end()) tried.push_back(candidate.string());
  }
  std::string all;
  for (const auto& candidate : tried) all += (all.empty() ? "" : " nor ") + candidate;
  throw Error(ErrorKind::kNotFound, what + " not found: no " + all + "; name the data folder with --data");
}

std::string ModelNameOf(const std::filesystem::path& file) {
  auto name = file.filename();
  while (name.has_extension()) name = name.stem();
  return ValidUtf8(name.string());
}

std::filesystem::path CheckedFolder(const RecipeOptions& options, const Recipe& recipe) {
  namespace fs = std::filesystem;
  const auto folder = options.out.empty() ? fs::path("out") / recipe.name : options.out;
  const auto here = fs::weakly_canonical(fs::absolute(folder));
  const auto in_the_way = [&](const std::string& key, const fs::path& file) {
    const auto full = fs::absolute(file);
    // Under its own name, and under that of what a link leads to.
    for (const auto& name : {fs::weakly_canonical(full.parent_path()) / full.filename(), fs::weakly_canonical(full)}) {
      if (!IsOutputName(name.filename().string()) || name.parent_path() != here) continue;
      throw Error(ErrorKind::kUsage, key + " " + file.string() +
                                         " lies in the output folder under a name that bitplan "
                                         "writes there; rename it or choose another --out");
    }
  };
  in_the_way("recipe", options.recipe);
  const std::pair<const char*, std::string> inputs[] = {{"model.file", recipe.model.file},
                                                        {"model.weights", recipe.model.weights},
                                                        {"bayes.from", recipe.bayes.from},
                                                        {"data.train_images", recipe.data.train_images},
                                                        {"data.train_labels", recipe.data.train_labels},
                                                        {"data.test_images", recipe.data.test_images},
                                                        {"data.test_labels", recipe.data.test_labels},
                                                        {"data.train", recipe.data.train},
                                                        {"data.test", recipe.data.test}};
  for (const auto& [key, name] : inputs) {
    if (name.empty()) continue;
    for (const auto& place : {options.data, options.recipe.parent_path()}) {
      std::error_code missing;
      if (!fs::exists(place / name, missing)) continue;
      in_the_way(key, place / name);
      break;  // FindInFolders takes the first
    }
  }
  return folder;
}

}  // namespace bitplan::pipeline
