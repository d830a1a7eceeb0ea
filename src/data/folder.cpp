// A folder with a folder of images for every class, as torchvision's ImageFolder reads it. Decoded by OpenCV; resized
// by LibTorch, bilinear with antialiasing, as torchvision and Pillow do.
#include <ATen/Parallel.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <fmt/format.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cmath>
#include <exception>
#include <iostream>
#include <map>
#include <mutex>
#include <opencv2/imgcodecs.hpp>
#include <optional>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr const char* kImageEndings[] = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"};
constexpr const char* kNoClass = "";
constexpr double kMemoryShare = 0.3;  // of the machine's, for the images of one split: cutting it takes a copy

bool IsImage(const std::filesystem::path& file) {
  std::string ending = file.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return file.filename().string().front() != '.' &&
         std::find(std::begin(kImageEndings), std::end(kImageEndings), ending) != std::end(kImageEndings);
}

// Sorted by name, which is the order of classes and of images: links are followed.
std::vector<std::filesystem::path> ImagesBelow(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  using Walk = std::filesystem::recursive_directory_iterator;
  try {
    for (const auto& entry : Walk(folder, std::filesystem::directory_options::follow_directory_symlink)) {
      if (entry.is_regular_file() && IsImage(entry.path())) files.push_back(entry.path());
    }
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(ErrorKind::kNotFound, folder.string() + ": cannot be listed: " + error.code().message());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// OpenCV writes its own complaints there, beside the error that names the file.
class QuietErrors {
 public:
  QuietErrors() : kept_(std::cerr.rdbuf(nullptr)) {}
  ~QuietErrors() { std::cerr.rdbuf(kept_); }
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;

 private:
  std::streambuf* kept_;
};

struct ImageClass {
  std::string name;
  std::vector<std::filesystem::path> files;
};

// `most`: of all classes together, taken evenly from each; 0: all.
std::vector<ImageClass> ClassesIn(const std::filesystem::path& folder, int most) {
  std::vector<std::filesystem::path> below;
  try {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.is_directory() && entry.path().filename().string().front() != '.') below.push_back(entry.path());
    }
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(ErrorKind::kNotFound, folder.string() + ": cannot be listed: " + error.code().message());
  }
  std::sort(below.begin(), below.end());
  std::vector<ImageClass> classes;
  for (const auto& path : below) classes.push_back({path.filename().string(), ImagesBelow(path)});
  if (classes.empty()) classes.push_back({kNoClass, ImagesBelow(folder)});
  if (classes.front().name == kNoClass && classes.front().files.empty()) {
    ThrowBadFile(folder, "holds no images; give it a folder of them for every class, or images without classes");
  }
  for (const ImageClass& one : classes) {
    if (one.files.empty()) ThrowBadFile(folder / one.name, "holds no images (jpg, png, bmp, webp, ppm, pgm, tif)");
  }
  if (most <= 0) return classes;
  const auto each = std::max<std::size_t>(1, static_cast<std::size_t>(most) / classes.size());
  for (ImageClass& one : classes) {
    const std::size_t count = one.files.size();
    if (count <= each) continue;
    std::vector<std::filesystem::path> kept;
    for (std::size_t i = 0; i < each; ++i) kept.push_back(std::move(one.files[i * count / each]));
    one.files = std::move(kept);
  }
  return classes;
}

std::filesystem::path RequireFolder(const char* key, const std::string& name, const Folders& folders) {
  for (const auto& place : folders) {
    std::error_code ignored;
    if (std::filesystem::is_directory(place / name, ignored)) return place / name;
  }
  throw Error(ErrorKind::kNotFound, fmt::format("data.{}: no folder {} in {}", key, name, JoinedFolders(folders)));
}

// uint8 [C, H, W].
torch::Tensor Decoded(const std::filesystem::path& file, const DataOptions& options) {
  const bool gray = options.channels == "gray";
  cv::Mat image;
  try {
    // As Pillow does: no turning by the orientation that a camera noted, no alpha.
    image = cv::imread(file.string(), (gray ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR) | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const std::exception&) {
    image.release();
  }
  if (image.empty()) ThrowBadFile(file, "cannot be decoded as an image");
  if (!image.isContinuous()) image = image.clone();
  torch::Tensor pixels =
      torch::from_blob(image.data, {image.rows, image.cols, gray ? 1 : 3}, torch::kUInt8).permute({2, 0, 1});
  return options.channels == "rgb" ? pixels.flip(0) : pixels.clone(at::MemoryFormat::Contiguous);
}

// Height and width once the shorter side is options.resize.
std::array<std::int64_t, 2> Resized(const torch::Tensor& pixels, const DataOptions& options) {
  const std::int64_t high = pixels.size(1), wide = pixels.size(2), shorter = std::min(high, wide);
  if (options.resize <= 0) return {high, wide};
  const auto scaled = [&](std::int64_t side) {
    return side == shorter ? options.resize : side * options.resize / shorter;
  };
  return {scaled(high), scaled(wide)};
}

// A square of options.crop from the middle of the resized picture.
torch::Tensor Sized(torch::Tensor pixels, const std::filesystem::path& file, const DataOptions& options) {
  const auto size = Resized(pixels, options);
  if (size[0] != pixels.size(1) || size[1] != pixels.size(2)) {
    const torch::Tensor floats = pixels.unsqueeze(0).to(torch::kFloat32);
    pixels = at::_upsample_bilinear2d_aa(floats, size, /*align_corners=*/false)
                 .squeeze(0)
                 .round_()
                 .clamp_(0, 255)
                 .to(torch::kUInt8);
  }
  if (options.crop <= 0) return pixels.contiguous();
  if (pixels.size(1) < options.crop || pixels.size(2) < options.crop) {
    ThrowBadFile(file, fmt::format("has {} x {} pixels, less than data.crop {}; set data.resize to that or more",
                                   pixels.size(1), pixels.size(2), options.crop));
  }
  const auto begin = [&](std::int64_t side) { return std::llrint(static_cast<double>(side - options.crop) / 2.0); };
  return pixels.narrow(1, begin(pixels.size(1)), options.crop)
      .narrow(2, begin(pixels.size(2)), options.crop)
      .contiguous();
}

void RequireMemory(const std::filesystem::path& folder, std::size_t images, std::int64_t bytes) {
  struct sysinfo machine {};
  if (sysinfo(&machine) != 0) return;
  const double all = static_cast<double>(machine.totalram) * machine.mem_unit;
  const double wanted = static_cast<double>(images) * static_cast<double>(bytes);
  if (wanted <= kMemoryShare * all) return;
  throw Error(ErrorKind::kUsage,
              fmt::format("{}: {} images would take {:.1f} of {:.1f} GiB of memory; set data.resize and data.crop, "
                          "or data.train_at_most for the training images",
                          folder.string(), images, wanted / (1 << 30), all / (1 << 30)));
}

Dataset ReadSplit(const char* split, const std::filesystem::path& folder, const std::vector<ImageClass>& classes,
                  const std::map<std::string, int>& numbers, const DataOptions& options) {
  std::vector<std::filesystem::path> files;
  std::vector<std::int64_t> labels;
  const bool unlabelled = classes.front().name == kNoClass;
  for (const ImageClass& one : classes) {
    const auto number = numbers.find(one.name);
    if (number == numbers.end() && !unlabelled) {
      ThrowBadFile(folder / one.name, fmt::format("is a class that {} does not have", options.train));
    }
    files.insert(files.end(), one.files.begin(), one.files.end());
    labels.insert(labels.end(), one.files.size(), unlabelled ? 0 : number->second);
  }
  const QuietErrors quiet;
  torch::Tensor first = Decoded(files.front(), options);
  const auto size = Resized(first, options);
  const std::int64_t area = options.crop > 0 ? std::int64_t{options.crop} * options.crop : size[0] * size[1];
  RequireMemory(folder, files.size(), first.size(0) * area);
  first = Sized(first, files.front(), options);
  auto shape = first.sizes().vec();
  shape.insert(shape.begin(), static_cast<std::int64_t>(files.size()));
  torch::Tensor images = torch::empty(shape, torch::kUInt8);
  std::mutex mutex;
  std::optional<std::pair<std::int64_t, std::exception_ptr>> failure;  // of the first image that failed
  std::atomic<bool> stop = false;
  at::parallel_for(0, images.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end && !stop; ++i) {
      try {
        ThrowIfInterrupted();
        const auto& file = files[static_cast<std::size_t>(i)];
        const torch::Tensor pixels = Sized(Decoded(file, options), file, options);
        if (pixels.sizes() != first.sizes()) {
          ThrowBadFile(
              file, fmt::format("is {} x {} pixels, but {} is {} x {}; set data.resize and data.crop", pixels.size(1),
                                pixels.size(2), files.front().string(), first.size(1), first.size(2)));
        }
        images[i].copy_(pixels);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!failure || i < failure->first) failure = {i, std::current_exception()};
        stop = true;
      }
    }
  });
  if (failure) std::rethrow_exception(failure->second);
  Dataset data{fmt::format("folder/{}", split), images, torch::tensor(labels, torch::kInt64),
               static_cast<int>(numbers.size())};
  if (unlabelled) SetUnlabelled(data);
  return data;
}

// Which class every file is of: the files' contents do not say that.
std::string LayoutOf(const std::vector<ImageClass>& classes) {
  std::string layout;
  for (const ImageClass& one : classes) layout += fmt::format("{}\n{}\n", one.name, one.files.size());
  return layout;
}

std::vector<std::filesystem::path> FilesOf(const std::vector<ImageClass>& classes) {
  std::vector<std::filesystem::path> files;
  for (const ImageClass& one : classes) files.insert(files.end(), one.files.begin(), one.files.end());
  return files;
}

}  // namespace

DataFiles FolderFiles(const DataOptions& options, const Folders& folders) {
  const auto train = ClassesIn(RequireFolder("train", options.train, folders), options.train_at_most);
  const auto test = ClassesIn(RequireFolder("test", options.test, folders), 0);
  return {FilesOf(train), FilesOf(test), LayoutOf(train), LayoutOf(test)};
}

DataSplits LoadFolder(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const auto train = RequireFolder("train", options.train, folders);
  const auto test = RequireFolder("test", options.test, folders);
  const auto classes = ClassesIn(train, options.train_at_most), test_classes = ClassesIn(test, 0);
  std::map<std::string, int> numbers;
  for (const ImageClass& one : classes.front().name == kNoClass ? test_classes : classes) {
    if (one.name != kNoClass) numbers.emplace(one.name, static_cast<int>(numbers.size()));
  }
  DataSplits splits;
  splits.train = ReadSplit("train", train, classes, numbers, options);
  splits.test = ReadSplit("test", test, test_classes, numbers, options);
  if (splits.train.images.sizes().slice(1) != splits.test.images.sizes().slice(1)) {
    ThrowBadFile(test,
                 fmt::format("images of {} x {} pixels, but those of {} have {} x {}; set data.resize and data.crop",
                             splits.test.images.size(2), splits.test.images.size(3), train.string(),
                             splits.train.images.size(2), splits.train.images.size(3)));
  }
  return splits;
}

}  // namespace bitplan
