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
  data.calibration_images = data.calibration_labels = "";
  Sha256 hash;
  hash.Update(DumpRecipeSection(read, "data"));
  const auto files = FindDatasetSource(recipe.data.name).files(recipe.data, folders);
  for (const auto& file : with_test ? files.test : files.train) hash.Update(FileSha256(file));
  if (with_test) {
    for (const auto& file : files.train) hash.Update(FileSha256(file));
  }
  return hash.Hex();
}

}  // namespace bitplan::pipeline
