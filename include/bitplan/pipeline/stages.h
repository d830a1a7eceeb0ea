// The stages above the allocation, alone: `bitplan train` and `bitplan posterior`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

struct ModelReport {
  std::filesystem::path folder;
  std::filesystem::path model_file;
  std::string model_name;
  std::string model_sha256;
  std::vector<double> epoch_loss;  // mean training loss, nats per sample
  std::vector<StageStatus> stages;
};

// Error(kUsage) when the recipe loads its model from a file.
[[nodiscard]] ModelReport Train(const RecipeOptions& options, ProgressSink& progress);

struct PosteriorLayerReport {
  std::string name;
  std::int64_t weights = 0;
  double prior_sigma = 0.0;
  double median_sigma = 0.0;  // over the layer's weights
};

struct PosteriorReport {
  std::filesystem::path folder;
  std::filesystem::path posterior_file;
  std::string estimator;
  std::int64_t data_size = 0;
  std::vector<PosteriorLayerReport> layers;
  std::vector<StageStatus> stages;
};

[[nodiscard]] PosteriorReport EstimatePosterior(const RecipeOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
