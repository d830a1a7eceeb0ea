// `bitplan make-data NAME`: data sets that are made, not fetched.
//
//   ambiguous-mnist  ambiguous-mnist/amnist_samples.pt and amnist_labels.pt from MNIST in the same data folder
//                    (bitplan/datagen/ambiguous_digits.h). Python opens both with torch.load.
//
// made.json beside the files says what they were made from: seed, counts, SHA-256 of both. Only files that it vouches
// for are ever replaced.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/progress.h"
#include "bitplan/datagen/ambiguous_digits.h"

namespace bitplan::pipeline {

struct MakeDataOptions {
  std::string name;
  std::filesystem::path data;  // data folder: MNIST is read from it, the files are written into it
  std::uint64_t seed = 1;
  AmbiguousDigitsOptions digits;  // both halves of the same size
};

struct MadeHalf {
  std::int64_t images = 0;
  std::int64_t drawn = 0, kept = 0;          // candidates
  double entropy = 0.0, information = 0.0;   // means over the images, nats
  double agreement = 0.0;                    // share of the labels that are the ensemble's most probable class
  std::vector<std::int64_t> entropy_counts;  // images in each bin of AmbiguousDigitsOptions
};

struct MakeDataReport {
  std::string name;
  bool made = false;  // false: the files were already there
  std::filesystem::path samples_file, labels_file;
  std::uint64_t seed = 1;
  int labels = 0;       // for every image
  std::string version;  // of the program that made the files
  MadeHalf train, test;
  double seconds = 0.0;  // of this run
};

// Does nothing when the files are there already and belong to the same seed and counts. Error(kUsage) for an unknown
// name (with the nearest one), options out of range, and files of these names that this program did not make, or that
// were changed since; Error(kNotFound) without MNIST; Error(kIo) when the folder cannot be written into. A run that is
// stopped leaves no half-written file.
[[nodiscard]] std::vector<std::string> MakeDataNames();  // of the data sets that can be made
[[nodiscard]] MakeDataReport MakeData(const MakeDataOptions& options, ProgressSink& progress);

}  // namespace bitplan::pipeline
