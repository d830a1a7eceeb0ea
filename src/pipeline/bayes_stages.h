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

#include "bitplan/bayes/calibrate.h"
#include "bitplan/bayes/learn.h"
#include "bitplan/bayes/stored_network.h"
#include "bitplan/bayes/widths.h"
#include "bitplan/core/progress.h"
#include "bitplan/pipeline/run_folder.h"
#include "bitplan/report/bayesian.h"
#include "pipeline/bayes_setup.h"

namespace bitplan::pipeline {

// The output folder, one writer at a time.
class BayesFolder {
 public:
  BayesFolder(std::filesystem::path folder, ProgressSink& progress)
      : folder_(std::move(folder), [&progress](const std::string& line) { progress.Warn(line); }) {}
  [[nodiscard]] std::filesystem::path File(const std::string& name) const { return folder_.File(name); }
  [[nodiscard]] const std::filesystem::path& path() const { return folder_.path(); }
  // The stage's record, from the folder or by `work`; `files` are what it writes.
  StageRecord Ensure(const std::string& stage, const std::string& input, const std::vector<std::string>& files,
                     const std::function<StageRecord()>& work);
  // As those of RunFolder.
  void Write(const std::string& name, const std::function<void(const std::filesystem::path& temporary)>& write) {
    const std::lock_guard lock(mutex_);
    folder_.Write(name, write);
  }
  void WriteTogether(const std::function<void(const std::filesystem::path& folder)>& write) {
    folder_.WriteTogether(write);
  }
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
    // Once something is fine-tuned:
    UncertaintyGroups groups;                           // of the training images
    std::map<std::int64_t, UncertaintyTarget> targets;  // of the first so many calibration images
  };
  [[nodiscard]] std::string Name(const std::string& row) const;
  // Loaded where it is asked for and held while somebody holds it: the images of many seeds need not fit at once.
  [[nodiscard]] std::shared_ptr<const BayesData> Data();
  [[nodiscard]] const Reference& FloatNetwork(ProgressSink& progress);
  [[nodiscard]] const UncertaintyGroups& TrainGroups(ProgressSink& progress);
  [[nodiscard]] const UncertaintyTarget& Target(const Dataset& images, ProgressSink& progress);
  [[nodiscard]] std::string FineTuning() const;
  // Rounded, trained as `stage` says, and for "fine-tuned" scaled on the images of `calibration`.
  [[nodiscard]] StoredNetwork Quantized(const std::vector<BayesWidths>& widths, int activation_bits,
                                        const std::string& sigma_scale, const std::string& stage, const Dataset& train,
                                        const Dataset& calibration, ProgressSink& progress);
  [[nodiscard]] std::vector<BayesCapCheck> Caps(const StoredNetwork& stored, const Dataset& held_out,
                                                std::uint64_t draws, ProgressSink& progress);
  [[nodiscard]] StageRecord Save(const StoredNetwork& stored, const std::string& name);
  [[nodiscard]] BayesSeedResult Measured(const StageRecord& network, const std::string& name, ProgressSink& progress);
  [[nodiscard]] StageRecord Measure(const StoredNetwork& stored, const std::string& name, ProgressSink& progress);

  const BayesSetup& setup_;
  BayesFolder& folder_;
  std::uint64_t seed_;
  std::mutex data_mutex_;
  std::weak_ptr<const BayesData> data_;
  std::mutex mutex_;  // of the reference
  std::optional<Reference> reference_;
};

// Per image of every split, [4, images]: share of its labels that are met, how many it has, aleatoric and epistemic
// uncertainty; by role.
[[nodiscard]] std::map<std::string, torch::Tensor> LoadPerImage(const BayesSetup& setup,
                                                                const std::filesystem::path& file);

}  // namespace bitplan::pipeline
