// Labelled images in memory, as published, and the splits a run uses.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan {

struct Dataset {
  std::string name;        // "mnist/test"
  torch::Tensor images;    // uint8 [N, C, H, W], pixels as published; or float32 for npy data, taken as it is
  torch::Tensor labels;    // int64 [N], each in 0..classes-1
  int classes = 0;

  [[nodiscard]] std::int64_t size() const { return labels.defined() ? labels.size(0) : 0; }
  // Rows `index` (int64 [n]) as a data set of their own (copies).
  [[nodiscard]] Dataset Select(const torch::Tensor& index) const;
  // The first n rows (a view).
  [[nodiscard]] Dataset Head(std::int64_t n) const;
};

struct DataSplits {
  Dataset train;        // without the calibration images
  Dataset calibration;  // DataOptions::calibration images of the training split, chosen by seed
  Dataset test;         // seen by `verify` only
};

// uint8 pixels -> float32 (x / 255 - mean) / std per channel; float32 images -> (x - mean) / std.
class Normalizer {
 public:
  explicit Normalizer(const DataOptions& options);
  [[nodiscard]] torch::Tensor Apply(const torch::Tensor& images) const;  // [n, C, H, W] -> float32 [n, C, H, W]

 private:
  torch::Tensor mean_, std_;  // float32 [1, C, 1, 1], undefined when not given
};

struct DatasetSource {
  const char* name;
  const char* description;
  // Reads the published train and test splits from the data folder.
  // Error(kNotFound) naming the missing file and scripts/fetch-data; Error(kData) for files that are not what they
  // should be (truncated gzip, wrong magic, label out of range, image and label counts that differ).
  DataSplits (*load)(const DataOptions& options, const std::vector<std::filesystem::path>& folders, std::uint64_t seed);
};

// Every data set, in the order of the list: mnist, fashion-mnist, cifar10, npy, synthetic-digits.
[[nodiscard]] const std::vector<DatasetSource>& DatasetSources();

// Looks options.name up (Error(kUsage), nearest name), loads, checks, and moves `calibration` random training images
// into the calibration split (stream "data/calibration"). `folders`: where relative files are looked for, in order: the
// data folder, then the recipe's folder.
[[nodiscard]] DataSplits LoadData(const DataOptions& options, const std::vector<std::filesystem::path>& folders,
                                  std::uint64_t seed);

}  // namespace bitplan
