// Labelled images in memory, as published, and the splits a run uses.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/likelihoods/likelihood.h"

namespace bitplan {

// What the rows of a split are called: messages are about the user's own files.
struct RowNames {
  std::string row = "image";              // one of them: image, row
  std::vector<std::string> classes = {};  // by number; empty: the labels are numbers
  // Row n as its file counts: "photos/train/cat/1.jpg", "line 7 of train.csv"; null: "image n of npy/train".
  std::function<std::string(std::int64_t row)> place = {};
  std::filesystem::path label_file = {};  // of labels alone; empty: `place` says it
};

struct Dataset {
  std::string name;  // "mnist/test"
  // uint8 [N, C, H, W], pixels as published; npy data are [N, ...]: uint8, float32 as they are or 0..1 with noise, or
  // int64
  torch::Tensor images;
  torch::Tensor labels;  // int64 [N], each in 0..classes-1; of another task what that takes (likelihoods/likelihood.h)
  int classes = 0;       // 0: another task than classification
  // Of rows that were chosen: where each stood in the split as published, int64 [N], and the name of that split.
  torch::Tensor positions = {};
  std::string origin = {};
  std::shared_ptr<Likelihood> likelihood = {};  // what the labels are, shared by all splits; null: classification
  // None were given: they are zeros until LabelBy puts the network's own answers there.
  bool unlabelled = false;
  std::shared_ptr<const RowNames> names = {};  // shared by all parts of a split; null: those of RowNames

  [[nodiscard]] const Likelihood& Task() const { return likelihood ? *likelihood : Classification(); }
  // "image 40 of npy/train", "photos/train/cat/1.jpg": row `row` as its file counts.
  [[nodiscard]] std::string ImageName(std::int64_t row) const;
  // "image", "row": what one of them is called.
  [[nodiscard]] std::string RowWord() const { return names ? names->row : RowNames{}.row; }
  [[nodiscard]] std::int64_t size() const { return labels.defined() ? labels.size(0) : 0; }
  // Rows `index` (int64 [n]) as a data set of their own (copies).
  [[nodiscard]] Dataset Select(const torch::Tensor& index) const;
  // The first n rows (a view).
  [[nodiscard]] Dataset Head(std::int64_t n) const;
};

// bool [n]: which of `images` [n, ...] differ from the one before, the first among them. An image with several labels
// stands several times in a row, once with each.
[[nodiscard]] torch::Tensor FirstOfRuns(const torch::Tensor& images);

// Error(kData) unless every label is one of `outputs` classes; names the file, the row, the label or class, what `who`,
// who has the outputs, allows, and what to do.
void CheckLabelsWithin(const Dataset& data, std::int64_t outputs, const std::string& who);

// Error(kUsage) for a split without labels: `who` needs them.
void RequireLabels(const Dataset& data, const std::string& who);

// The first half of the rows and the others (views). An image that stands several times in a row is on one side.
[[nodiscard]] std::pair<Dataset, Dataset> Halves(const Dataset& data);

struct DataSplits {
  Dataset train;        // without the calibration images, in random order
  Dataset calibration;  // DataOptions::calibration images of the training or test split, or of files of their own
  Dataset test;         // seen by `verify` only; in the order of its files, without the calibration images
};

// uint8 pixels -> float32 (x / 255 - mean) / std per channel; other numbers -> float32 (x - mean) / std. Channels are
// dimension 1 of [n, C, ...]: features of [n, F]. One value serves all; no value means mean 0, std 1. Error(kUsage) for
// std <= 0 and for another number of values than channels.
class Normalizer {
 public:
  explicit Normalizer(const DataOptions& options);
  [[nodiscard]] torch::Tensor Apply(const torch::Tensor& images) const;  // float32, the same shape

  // For a model whose inputs are integers, as those of an embedding: from here on Apply gives int64 as they are.
  // Error(kUsage) then when there is a mean or deviation.
  void KeepIntegers() { integers_ = true; }

 private:
  torch::Tensor mean_, std_;  // float32 [C] or [1], undefined when not given
  bool integers_ = false;
};

// The files behind the splits, in the order they are read.
struct DataFiles {
  std::vector<std::filesystem::path> train, test;
  std::string train_layout = {}, test_layout = {};  // what labels depend on beside the files' contents
  std::int64_t train_rows = 0, test_rows = 0;       // of each split; 0: not known before they are read
};

// What is read, relative to a folder of LoadData:
//   mnist, fashion-mnist  NAME/{train,t10k}-{images-idx3,labels-idx1}-ubyte, with .gz or without. fashion-mnist without
//                         its training files gives the test split alone; train and calibration stay empty.
//   ambiguous-mnist       ambiguous-mnist/amnist_samples.pt and amnist_labels.pt, the tensors of Ambiguous-MNIST as
//                         published or as `bitplan make-data` makes them: images float [N, 1, 28, 28] in 0..1, kept as
//                         bytes (round(255 u)); labels integer [N, L]. Every image stands L times in a row, once with
//                         each of its labels; the first half of the images is the training split.
//   dirty-mnist           the files of mnist and of ambiguous-mnist: the rows of the first, then those of the second,
//                         in both splits
//   cifar10               cifar-10-batches-bin/data_batch_{1..5}.bin and test_batch.bin (the binary version)
//   npy                   the files that DataOptions names, written by numpy.save: images [N, ...] of any integer or
//                         float type with at least two dimensions, [N, H, W] by DataOptions::layout with or without a
//                         channel put in; labels [N] of any integer type, class numbers from 0. The number of classes
//                         is the largest label of all splits plus one. Integers of 4 and 8 bytes stay integers (int64).
//                         A split of classes may lack its labels.
//   folder                the folders DataOptions::train and test, with a folder of images for every class; classes are
//                         numbered by name. Files of other endings than jpg, png, bmp, webp, ppm, pgm and tif are no
//                         images, and names that begin with a point count nowhere. uint8 [N, C, H, W] after resize and
//                         crop, all of one size: 0..255 is 0 to the file's own maximum. A split that holds images but
//                         no folders has no labels. Links are followed; Error(kData) for one that leads nowhere or
//                         into itself, and for a pipe or the like with the name of an image.
//   csv                   the tables DataOptions::train and test: a line of column names, then a row a line; inputs
//                         float32 [N, columns], labels whole numbers from 0 or names, numbered in alphabetical order. A
//                         table without the column DataOptions::label, or with the label "none", has no labels.
//   synthetic-digits      nothing: rendered from a seed of its own, the same for every run
//   synthetic-letters     likewise: capital letters, drawn as those digits are; labels 0..23 for A to Z without I and
//                         O, which people write as 1 and 0
// scripts/fetch-data lays the public ones out.
struct DatasetSource {
  const char* name;
  const char* description;
  // The published train and test splits; calibration is left empty.
  // Error(kNotFound) naming the missing file, the folders and the command that gets it; Error(kData) for files that are
  // not what they should be (truncated gzip, wrong magic, label out of range, unequal image and label counts, empty).
  DataSplits (*load)(const DataOptions& options, const std::vector<std::filesystem::path>& folders, std::uint64_t seed);
  // The files that `load` reads, found; Error(kNotFound) as above.
  DataFiles (*files)(const DataOptions& options, const std::vector<std::filesystem::path>& folders);
  // Names of the classes by number, of sources whose classes have names; empty where labels are numbers. The images are
  // not read. Null: labels are numbers.
  std::vector<std::string> (*class_names)(const DataOptions& options,
                                          const std::vector<std::filesystem::path>& folders) = nullptr;
};

// Adds DataOptions::noise to the images, in units of the normalized image: float32 pixels (bytes are divided by 255),
// not clamped. Every image has noise of its own, by seed and the data set's name; images that stand several times in a
// row, once with each of their labels, keep one. No noise: unchanged.
void AddNoise(Dataset& data, const DataOptions& options, std::uint64_t seed);

// Every data set, in the order of the list.
[[nodiscard]] const std::vector<DatasetSource>& DatasetSources();

// Error(kUsage) with the known names and the nearest one.
[[nodiscard]] const DatasetSource& FindDatasetSource(const std::string& name);

// Looks options.name up (Error(kUsage), nearest name), loads, shuffles the training split (so that the head of a part
// is a fair sample of it) and moves its first `calibration` images into the calibration split (stream
// "data/calibration"; a smaller calibration split is part of a bigger one). By options.calibration_from they come from
// the test split instead, which is smaller then; with options.calibration_images from those files. An image that stands
// several times in a row is never on both sides: the calibration split grows until its last image is whole.
// Where `calibration` would be more than half of the split, a fifth of it is taken. `folders`: where relative files are
// looked for, in order: the data folder, then the recipe's folder. `calibration_seed`: of that choice; images and noise
// follow `seed`.
[[nodiscard]] DataSplits LoadData(const DataOptions& options, const std::vector<std::filesystem::path>& folders,
                                  std::uint64_t seed, std::uint64_t calibration_seed);
[[nodiscard]] DataSplits LoadData(const DataOptions& options, const std::vector<std::filesystem::path>& folders,
                                  std::uint64_t seed);

}  // namespace bitplan
