// What `bitplan bayes` is asked for, checked and loaded before anything is trained: rows, model, data.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/widths.h"
#include "bitplan/core/options.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

inline constexpr const char* kClean = "clean";
inline constexpr const char* kAmbiguous = "ambiguous";
inline constexpr const char* kUnknown = "out-of-distribution";  // of the first such set; others: with -2, -3, ...
[[nodiscard]] bool IsUnknown(const std::string& role);

inline constexpr const char* kControl = "float-fine-tuned";

// One quantized network to measure, but for the seed.
struct RowSpec {
  std::string name, scheme, stage, sigma_scale;
  double bits = 0.0;
  BayesWidths widths;  // of every layer; not used by a plan
  int activation_bits = kFloatBits;
};
// A width of bayes.bits, or one of its own: 0 is none, above 8 float.
[[nodiscard]] int Width(int own, int common);
// Every row that the options ask for, the control first. Error(kUsage) for lists that are empty or hold an entry twice.
[[nodiscard]] std::vector<RowSpec> Rows(const BayesOptions& options);

// What the networks of one seed learn from and are measured on.
struct BayesData {
  struct Split {
    std::string role;
    DistinctImages images;
  };
  DataSplits data;  // train and calibration
  std::vector<Split> splits;
};

// What all networks of a run share; made before the first stage and never changed.
class BayesSetup {
 public:
  // Error kinds as in core/error.h: unknown names, files that are missing, a model without the recipe's activation or
  // that is no classifier for the data (pipeline/model_checks.h).
  explicit BayesSetup(const RecipeOptions& options);

  // Role and data set of every split that is measured.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> Roles() const;
  [[nodiscard]] bool OnCalibration() const { return recipe.verify.split == "calibration"; }
  // Where the means of a seed begin.
  [[nodiscard]] Network First(std::uint64_t seed) const;

  // Of the networks of a seed: what a run of that seed alone has. Calibration images, the order of the training images
  // and noise are by that seed. Loaded anew for every seed but the recipe's; callable from several threads.
  [[nodiscard]] std::shared_ptr<const BayesData> Data(std::uint64_t seed) const;
  // What its measurements depend on, beside the network.
  [[nodiscard]] std::string TestHash(std::uint64_t seed) const;
  // Whether all seeds are measured on the same images.
  [[nodiscard]] bool SameImages() const;

  Recipe recipe;
  std::vector<std::filesystem::path> folders;
  Normalizer normalizer;
  std::string model_name;
  bool is_trained = false;  // the model begins with weights that it has; otherwise an architecture is trained
  Network base;             // the graph of every network: the recipe's model with the recipe's activation
  std::shared_ptr<const BayesData> first;  // of the recipe's seed
  std::string train_hash, model_hash;
  std::vector<std::string> warnings;  // one line each

 private:
  [[nodiscard]] std::vector<BayesData::Split> Splits(const DataSplits& data, std::uint64_t seed) const;

  std::int64_t outputs_ = 0;
  std::vector<std::vector<std::string>> test_digests_;  // of the test files of every role
};

}  // namespace bitplan::pipeline
