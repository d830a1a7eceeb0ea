#include "bitplan/data/dataset.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <utility>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/random.h"
#include "bitplan/core/suggest.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr std::int64_t kSmallShare = 5;  // of a split of which the calibration images would be more than half

torch::Tensor PerChannel(const std::vector<double>& values) {
  if (values.empty()) return {};
  return torch::tensor(values, torch::kFloat64).to(torch::kFloat32);
}

// `values` [C] or [1] along dimension 1 of images [n, C, ...].
torch::Tensor Along(const torch::Tensor& values, const torch::Tensor& images, const char* field) {
  if (values.size(0) != 1 && values.size(0) != images.size(1)) {
    throw Error(ErrorKind::kUsage, fmt::format("data.normalize.{}: {} for images with {}; give one for each", field,
                                               Counted(values.size(0), "value"), Counted(images.size(1), "channel")));
  }
  std::vector<std::int64_t> shape(static_cast<std::size_t>(images.dim()), 1);
  shape[1] = values.size(0);
  return values.view(shape).to(images.device());
}

// Where every image begins that stands once or several times in a row, and where the last ends.
std::vector<std::int64_t> Runs(const torch::Tensor& images) {
  const torch::Tensor starts = FirstOfRuns(images).nonzero().squeeze(1);
  std::vector<std::int64_t> begins(starts.data_ptr<std::int64_t>(), starts.data_ptr<std::int64_t>() + starts.numel());
  begins.push_back(images.size(0));
  return begins;
}

// The rows of a split in random order, repetitions of an image together, and how many of the first are `count` images
// or just more, so that the last image is whole. Shuffled, so that the head of either part is a fair sample even of
// data that came sorted by class.
std::pair<torch::Tensor, std::int64_t> Shuffled(const Dataset& data, std::int64_t count, std::uint64_t seed) {
  const std::int64_t size = data.size();
  const auto runs = Runs(data.images);
  std::vector<std::int64_t> order;
  order.reserve(static_cast<std::size_t>(size));
  const auto wanted = count;
  for (const std::int64_t run :
       RandomStream(seed, "data/calibration").Permutation(static_cast<std::int64_t>(runs.size()) - 1)) {
    const auto begin = runs[static_cast<std::size_t>(run)], end = runs[static_cast<std::size_t>(run) + 1];
    const auto before = static_cast<std::int64_t>(order.size());
    for (std::int64_t row = begin; row < end; ++row) order.push_back(row);
    const auto after = static_cast<std::int64_t>(order.size());
    if (before < wanted && wanted < after) count = after;
  }
  return {torch::tensor(order, torch::kInt64), count};
}

// The calibration split, by options.calibration_from; the training split in random order.
void CutCalibration(DataSplits& splits, const DataOptions& options, std::uint64_t seed) {
  const bool of_test = options.calibration_from == "test", given = splits.calibration.size() > 0;
  if (splits.train.size() == 0 && !of_test) return;
  Dataset& source = of_test ? splits.test : splits.train;
  const std::int64_t size = source.size();
  const std::int64_t asked = options.calibration;
  const std::int64_t wanted = given || 2 * asked <= size ? asked : std::max<std::int64_t>(1, size / kSmallShare);
  if (!given && size < 2) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} has {}; for {} and calibration together two or more are needed", source.name,
                            Counted(size, source.RowWord()), of_test ? "measuring" : "training"));
  }
  if (wanted < 0) throw Error(ErrorKind::kUsage, fmt::format("data.calibration: {}; give 1 or more", wanted));
  if (given) {  // files of its own
    const auto [order, count] = Shuffled(splits.calibration, wanted, seed);
    splits.calibration = splits.calibration.Select(order.slice(0, 0, std::min(count, order.size(0))));
    splits.train = splits.train.Select(Shuffled(splits.train, 0, seed).first);
    return;
  }
  const auto [order, count] = Shuffled(source, wanted, seed);
  if (count >= size) {
    throw Error(ErrorKind::kUsage,
                fmt::format("data.calibration: {} would be all of {}", Counted(wanted, source.RowWord()), source.name));
  }
  splits.calibration = source.Select(order.narrow(0, 0, count));
  splits.calibration.name = options.name + "/calibration" + (splits.calibration.unlabelled ? kOwnLabels : "");
  if (!of_test) {
    splits.train = source.Select(order.narrow(0, count, size - count));
    return;
  }
  // What is left is measured in the order of its files.
  splits.test = source.Select(std::get<0>(order.narrow(0, count, size - count).sort()));
  if (splits.train.size() > 0) splits.train = splits.train.Select(Shuffled(splits.train, 0, seed).first);
}

}  // namespace

std::string Dataset::ImageName(std::int64_t row) const {
  const std::int64_t published = positions.defined() ? positions[row].item<std::int64_t>() : row;
  if (names && names->place) return names->place(published);
  return fmt::format("{} {} of {}", RowWord(), published, origin.empty() ? name : origin);
}

Dataset Dataset::Select(const torch::Tensor& index) const {
  Dataset chosen = *this;
  chosen.images = images.index_select(0, index);
  chosen.labels = labels.index_select(0, index);
  chosen.positions = positions.defined() ? positions.index_select(0, index) : index.clone();
  if (origin.empty()) chosen.origin = name;
  return chosen;
}

Dataset Dataset::Head(std::int64_t n) const {
  if (n < 0 || n > size()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: the first {} asked for, but it has {}", name, Counted(n, RowWord()), size()));
  }
  if (!labels.defined()) return *this;
  Dataset head = *this;
  head.images = images.narrow(0, 0, n);
  head.labels = labels.narrow(0, 0, n);
  if (positions.defined()) head.positions = positions.narrow(0, 0, n);
  return head;
}

void RequireLabels(const Dataset& data, const std::string& who) {
  if (!data.unlabelled || data.size() == 0) return;
  throw Error(ErrorKind::kUsage,
              fmt::format("{} has no labels, and {} needs them", data.name.substr(0, data.name.find(kOwnLabels)), who));
}

void CheckLabelsWithin(const Dataset& data, std::int64_t outputs, const std::string& who) {
  const torch::Tensor outside = data.labels.lt(0) | data.labels.ge(outputs);
  if (!outside.any().item<bool>()) return;
  const torch::Tensor rows = outside.nonzero().reshape({-1});
  const torch::Tensor places = data.positions.defined() ? data.positions.index_select(0, rows) : rows;
  const auto row = rows[places.argmin().item<std::int64_t>()].item<std::int64_t>();  // the first in its file
  const auto label = data.labels[row].item<std::int64_t>();
  const std::vector<std::string>& classes = data.names ? data.names->classes : RowNames{}.classes;
  if (label >= 0 && label < std::ssize(classes)) {
    throw Error(ErrorKind::kData,
                fmt::format("{} is of class {}, '{}', but {} has {}, for the classes 0..{} of {}; take a model with an "
                            "output for every class, or leave out the classes that it does not know",
                            data.ImageName(row), label, classes[static_cast<std::size_t>(label)], who,
                            Counted(outputs, "output"), outputs - 1, std::ssize(classes)));
  }
  const std::string file = data.names && !data.names->label_file.empty() ? data.names->label_file.string() + ": " : "";
  throw Error(
      ErrorKind::kData,
      fmt::format("{}{} has the label {}, but {} has {}: labels are class numbers 0..{}; count the classes from "
                  "0, leave such {}s out, or take a model with more outputs",
                  file, data.ImageName(row), label, who, Counted(outputs, "output"), outputs - 1, data.RowWord()));
}

torch::Tensor FirstOfRuns(const torch::Tensor& images) {
  torch::Tensor first = torch::ones({images.size(0)}, torch::kBool);
  if (images.size(0) < 2) return first;
  const torch::Tensor flat = images.flatten(1);
  first.slice(0, 1) = flat.slice(0, 1).ne(flat.slice(0, 0, -1)).any(1);
  return first;
}

std::pair<Dataset, Dataset> Halves(const Dataset& data) {
  if (data.size() == 0) return {data, data};
  const auto runs = Runs(data.images);
  const auto cut = *std::lower_bound(runs.begin(), runs.end(), data.size() / 2);
  Dataset rest = data;
  rest.images = data.images.narrow(0, cut, data.size() - cut);
  rest.labels = data.labels.narrow(0, cut, data.size() - cut);
  rest.positions = data.positions.defined() ? data.positions.narrow(0, cut, data.size() - cut)
                                            : torch::arange(cut, data.size(), torch::kInt64);
  if (rest.origin.empty()) rest.origin = data.name;
  return {data.Head(cut), std::move(rest)};
}

Normalizer::Normalizer(const DataOptions& options)
    : mean_(PerChannel(options.normalize_mean)), std_(PerChannel(options.normalize_std)) {
  for (const double value : options.normalize_std) {
    if (!(value > 0)) {
      throw Error(ErrorKind::kUsage, fmt::format("data.normalize.std: {}; every value must be greater than 0", value));
    }
  }
}

torch::Tensor Normalizer::Apply(const torch::Tensor& images) const {
  if (integers_) {
    if (mean_.defined() || std_.defined()) {
      throw Error(ErrorKind::kUsage,
                  "data.normalize: the model takes integers, which are not normalized; leave it out");
    }
    return images.to(torch::kInt64, /*non_blocking=*/false, /*copy=*/true);
  }
  torch::Tensor pixels = images.to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true);
  if (images.scalar_type() == torch::kUInt8) pixels.div_(255);
  if (mean_.defined()) pixels.sub_(Along(mean_, pixels, "mean"));
  if (std_.defined()) pixels.div_(Along(std_, pixels, "std"));
  return pixels;
}

void AddNoise(Dataset& data, const DataOptions& options, std::uint64_t seed) {
  if (!(options.noise > 0.0) || data.size() == 0) return;
  const auto runs = Runs(data.images);
  const auto count = static_cast<std::int64_t>(runs.size()) - 1;
  auto shape = data.images.sizes().vec();
  shape[0] = count;
  auto generator = at::detail::createCPUGenerator(StreamSeed(seed, "data/noise/" + data.name));
  torch::Tensor noise = torch::randn(shape, generator).mul_(options.noise);
  if (!options.normalize_std.empty()) noise.mul_(Along(PerChannel(options.normalize_std), data.images, "std"));
  const torch::Tensor ends = torch::tensor(runs);
  const bool bytes = data.images.scalar_type() == torch::kUInt8;
  data.images = data.images.to(torch::kFloat32, /*non_blocking=*/false, /*copy=*/true).div_(bytes ? 255.0 : 1.0);
  data.images.add_(noise.repeat_interleave(ends.slice(0, 1) - ends.slice(0, 0, count), 0));
}

const std::vector<DatasetSource>& DatasetSources() {
  static const std::vector<DatasetSource> sources = {
      {"mnist", "handwritten digits, 60,000 + 10,000 images 1x28x28; files mnist/*-ubyte[.gz]", LoadMnist, MnistFiles},
      {"fashion-mnist", "articles of clothing, 60,000 + 10,000 images 1x28x28; files fashion-mnist/*-ubyte[.gz]",
       LoadFashionMnist, FashionMnistFiles},
      {"ambiguous-mnist",
       "ambiguous digits with ten labels each, 60,000 + 60,000 rows 1x28x28; files ambiguous-mnist/*.pt",
       LoadAmbiguousMnist, AmbiguousMnistFiles},
      {"dirty-mnist", "mnist and ambiguous-mnist together, 120,000 + 70,000 rows 1x28x28", LoadDirtyMnist,
       DirtyMnistFiles},
      {"cifar10", "small photographs, 50,000 + 10,000 images 3x32x32; files cifar-10-batches-bin/*.bin", LoadCifar10,
       Cifar10Files},
      {"npy", "your own images and labels, saved by numpy.save; files named by data.train_images and its siblings",
       LoadNpy, NpyFiles},
      {"folder", "your own pictures, a folder of them for every class; folders named by data.train and data.test",
       LoadFolder, FolderFiles, FolderClassNames},
      {"csv", "your own table, a line a row; files named by data.train and data.test", LoadCsv, CsvFiles,
       CsvClassNames},
      {"synthetic-digits", "rendered digits that need no files, 20,000 + 4,000 images 1x28x28", LoadSyntheticDigits,
       SyntheticFiles},
      {"synthetic-letters",
       "rendered capital letters without I and O that need no files, 19,200 + 9,600 images 1x28x28",
       LoadSyntheticLetters, SyntheticFiles},
  };
  return sources;
}

const DatasetSource& FindDatasetSource(const std::string& name) {
  return FindByName(DatasetSources(), "data set", name);
}

DataSplits LoadData(const DataOptions& options, const std::vector<std::filesystem::path>& folders, std::uint64_t seed) {
  return LoadData(options, folders, seed, seed);
}

DataSplits LoadData(const DataOptions& options, const std::vector<std::filesystem::path>& folders, std::uint64_t seed,
                    std::uint64_t calibration_seed) {
  if (!options.task.empty() && options.name != "npy" && options.name != "csv") {
    throw Error(ErrorKind::kUsage,
                fmt::format("data.task: {}, but the labels of {} are classes; name files of your own "
                            "with data.name: npy or csv",
                            options.task, options.name));
  }
  DataSplits splits = FindDatasetSource(options.name).load(options, folders, seed);
  for (Dataset* data : {&splits.train, &splits.test, &splits.calibration}) AddNoise(*data, options, seed);
  CutCalibration(splits, options, calibration_seed);
  return splits;
}

}  // namespace bitplan
