// The stages of `bitplan bayes`, each a network or its measurement, run once and kept in the output folder. Everything
// here may be called from several threads at a time, one network per thread.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/bayes/learn.h"
#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/bayes/widths.h"
#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/pipeline/run_folder.h"
#include "bitplan/report/bayesian.h"

namespace bitplan::pipeline {

inline constexpr const char* kClean = "clean";
inline constexpr const char* kAmbiguous = "ambiguous";
inline constexpr const char* kUnknown = "out-of-distribution";

// One quantized network to measure, but for the seed.
struct RowSpec {
  std::string name, scheme, stage, sigma_scale;
  double bits = 0.0;
  BayesWidths widths;  // of every layer; not used by a plan
  int activation_bits = kFloatBits;
};
// Every row that the options ask for. Error(kUsage) for lists that are empty or hold an entry twice.
[[nodiscard]] std::vector<RowSpec> Rows(const BayesOptions& options);

// What all networks of a run share; made before the first stage and never changed.
class BayesSetup {
 public:
  // Error kinds as in core/error.h: unknown names, files that are missing, a model without the recipe's activation.
  explicit BayesSetup(const RecipeOptions& options);

  // Role and data set of every split that is measured.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> Roles() const;
  [[nodiscard]] bool OnCalibration() const { return recipe.verify.split == "calibration"; }
  // Where the means of a seed begin.
  [[nodiscard]] Network First(std::uint64_t seed) const;
  [[nodiscard]] bool FromFile() const { return !model_file.empty(); }

  struct Split {
    std::string role;
    DistinctImages images;
  };

  Recipe recipe;
  std::vector<std::filesystem::path> folders;
  Normalizer normalizer;
  std::string model_file, model_name;  // file: empty when an architecture is trained
  Network base;                        // the graph of every network: the recipe's model with the recipe's activation
  DataSplits data;                     // train and calibration
  std::vector<Split> splits;
  std::string train_hash, test_hash, model_hash;
};

// The output folder, one writer at a time.
class BayesFolder {
 public:
  explicit BayesFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}
  [[nodiscard]] std::filesystem::path File(const std::string& name) const { return folder_.File(name); }
  [[nodiscard]] const std::filesystem::path& path() const { return folder_.path(); }
  // The stage's record, from the folder or by `work`; `files` are what it writes.
  StageRecord Ensure(const std::string& stage, const std::string& input, const std::vector<std::string>& files,
                     const std::function<StageRecord()>& work);
  [[nodiscard]] std::vector<StageStatus> statuses() const { return statuses_; }

 private:
  std::mutex mutex_;
  RunFolder folder_;
  std::vector<StageStatus> statuses_;
};

// All networks of one seed.
class BayesSeed {
 public:
  BayesSeed(const BayesSetup& setup, BayesFolder& folder, std::uint64_t seed)
      : setup_(setup), folder_(folder), seed_(seed) {}

  [[nodiscard]] BayesSeedResult Float(ProgressSink& progress);
  [[nodiscard]] BayesSeedResult Row(const RowSpec& spec, ProgressSink& progress);
  // Means and standard deviations with widths of their own, within the budget and the caps.
  [[nodiscard]] BayesSeedResult Plan(const std::string& name, ProgressSink& progress);

 private:
  struct Reference {
    StageRecord record;
    StoredNetwork stored;
    UncertaintyGroups groups;  // of the training images; empty until something is fine-tuned
  };
  [[nodiscard]] std::string Name(const std::string& row) const;
  [[nodiscard]] const Reference& FloatNetwork(ProgressSink& progress);
  [[nodiscard]] const UncertaintyGroups& TrainGroups(ProgressSink& progress);
  [[nodiscard]] std::string FineTuning() const;
  [[nodiscard]] StoredNetwork Quantized(const std::vector<BayesWidths>& widths, int activation_bits,
                                        const std::string& sigma_scale, const std::string& stage,
                                        ProgressSink& progress);
  [[nodiscard]] std::string BrokenCap(const StoredNetwork& stored, ProgressSink& progress);
  [[nodiscard]] StageRecord Save(const StoredNetwork& stored, const std::string& name);
  [[nodiscard]] BayesSeedResult Measured(const StageRecord& network, const std::string& name, ProgressSink& progress);
  [[nodiscard]] StageRecord Measure(const StoredNetwork& stored, const std::string& name, ProgressSink& progress);

  const BayesSetup& setup_;
  BayesFolder& folder_;
  std::uint64_t seed_;
  std::mutex mutex_;  // of the reference
  std::optional<Reference> reference_;
};

// Per image of every split, [4, images]: share of its labels that are met, how many it has, aleatoric and epistemic
// uncertainty; by role.
[[nodiscard]] std::map<std::string, torch::Tensor> LoadPerImage(const BayesSetup& setup,
                                                                const std::filesystem::path& file);

}  // namespace bitplan::pipeline
