#include "pipeline/data_hash.h"

#include "bitplan/data/dataset.h"
#include "bitplan/io/files.h"
#include "bitplan/io/recipe.h"
#include "bitplan/pipeline/run_folder.h"

namespace bitplan::pipeline {

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
  return hash.Hex();
}

}  // namespace bitplan::pipeline
