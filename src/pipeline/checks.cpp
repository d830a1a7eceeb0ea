#include "pipeline/checks.h"

#include <algorithm>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/data/augment.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/architectures.h"
#include "bitplan/posterior/posterior.h"
#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan::pipeline {

void CheckNames(const Recipe& recipe) {
  const bool brings_model = !recipe.model.file.empty() || !recipe.bayes.from.empty();
  if (!brings_model || !recipe.model.architecture.empty()) {
    (void)FindArchitecture(recipe.model.architecture);
    for (const auto& name : recipe.train.augment) (void)FindAugmentation(name);
  }
  (void)FindPosteriorEstimator(recipe.posterior.estimator);
  (void)FindSensitivityMetric(recipe.sensitivity.metric);
  (void)FindAllocator(recipe.allocate.allocator);
  for (const auto& name : recipe.compare.allocators) (void)FindAllocator(name);
  (void)FindDatasetSource(recipe.data.name);
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
  return name.string();
}

}  // namespace bitplan::pipeline
