#include "pipeline/data_hash.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>

#include "bitplan/core/counted.h"
#include "bitplan/data/dataset.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/pipeline/run_folder.h"

namespace bitplan::pipeline {
namespace {

// Whether fewer calibration images are taken than data.calibration says, where once as many were: stages that are kept
// from then are of others. A split whose size is not known before it is read, a table but for those published, counts
// as one of them.
bool TakesFewer(const DataOptions& options, const DataFiles& files) {
  if (!options.calibration_images.empty()) return false;
  constexpr std::int64_t kOfAnyPublished = 5000;  // is at most half of its smallest split
  const std::int64_t rows = options.calibration_from == "test" ? files.test_rows : files.train_rows;
  if (rows == 0) return options.name == "csv" || options.calibration > kOfAnyPublished;
  return options.calibration < rows && rows < 2 * std::int64_t{options.calibration};
}

}  // namespace

std::string DataHash(const Recipe& recipe, const std::vector<std::filesystem::path>& folders, bool with_test) {
  Recipe read = recipe;
  with_test = with_test || recipe.data.calibration_from == "test";
  // What the files hold counts, not where they lie.
  auto& data = read.data;
  data.train_images = data.train_labels = data.test_images = data.test_labels = "";
  data.calibration_images = data.calibration_labels = data.train = data.test = "";
  Sha256 hash;
  hash.Update(DumpRecipeSection(read, "data"));
  const auto files = FindDatasetSource(recipe.data.name).files(recipe.data, folders);
  const auto add = [&](const std::vector<std::filesystem::path>& split, const std::string& layout) {
    for (const auto& file : split) hash.Update(FileSha256(file));
    if (!layout.empty()) hash.Update(layout);
  };
  if (with_test) add(files.test, files.test_layout);
  add(files.train, files.train_layout);
  if (TakesFewer(recipe.data, files)) hash.Update("calibration: at most half");
  return hash.Hex();
}

std::string FewerCalibration(const DataOptions& options, std::int64_t taken, const std::string& sample) {
  if (!options.calibration_images.empty() || taken >= options.calibration || taken == 0) return "";
  return Counted(taken, "calibration " + sample) + ", a fifth, for data.calibration " + Grouped(options.calibration) +
         " is more than half";
}

std::pair<std::int64_t, std::int64_t> SharedFiles(const DataOptions& options,
                                                  const std::vector<std::filesystem::path>& folders) {
  const auto place = [](const std::filesystem::path& file) {
    struct stat facts {};
    return ::stat(file.c_str(), &facts) == 0 ? std::optional(std::pair(facts.st_dev, facts.st_ino)) : std::nullopt;
  };
  const auto files = FindDatasetSource(options.name).files(options, folders);
  std::set<std::pair<dev_t, ino_t>> trained;
  for (const auto& file : files.train) {
    if (const auto known = place(file)) trained.insert(*known);
  }
  const auto shared = std::count_if(files.test.begin(), files.test.end(), [&](const auto& file) {
    const auto known = place(file);
    return known && trained.count(*known) > 0;
  });
  return {std::ssize(files.test), shared};
}

}  // namespace bitplan::pipeline
