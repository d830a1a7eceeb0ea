// A folder with a folder of images for every class, as torchvision's ImageFolder reads it. Resized
// by LibTorch, bilinear with antialiasing, as torchvision and Pillow do.
#include <ATen/Parallel.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <cmath>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "data/picture.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr const char* kImageEndings[] = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"};
constexpr const char* kNoClass = "";
constexpr double kMemoryShare = 0.3;  // of the machine's, for the images of one split: cutting it takes a copy

std::string EndingOf(const std::filesystem::path& file) {
  std::string ending = file.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return ending;
}

bool HasImageEnding(const std::filesystem::path& file) {
  return std::find(std::begin(kImageEndings), std::end(kImageEndings), EndingOf(file)) != std::end(kImageEndings);
}

struct FolderEntry {
  std::filesystem::path path;
  std::filesystem::file_type type;  // links are followed
};

// Sorted by name; without those whose name begins with a point, as .git or .ipynb_checkpoints.
std::vector<FolderEntry> EntriesOf(const std::filesystem::path& folder) {
  std::vector<FolderEntry> entries;
  try {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().filename().string().front() == '.') continue;
      entries.push_back({entry.path(), std::filesystem::file_type::none});
    }
  } catch (const std::filesystem::filesystem_error& error) {
    throw Error(ErrorKind::kNotFound, folder.string() + ": cannot be listed: " + error.code().message());
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  for (FolderEntry& entry : entries) entry.type = TypeOfOwn(entry.path);
  return entries;
}

// A folder whatever it is called.
struct FolderPlace {
  dev_t device;
  ino_t inode;
  bool operator==(const FolderPlace&) const = default;
};

FolderPlace PlaceOf(const std::filesystem::path& folder) {
  struct stat facts {};
  if (::stat(folder.c_str(), &facts) != 0) ThrowBadFile(folder, "cannot be looked at; check its permissions");
  return {facts.st_dev, facts.st_ino};
}

// `above`: the folders that lead here, this one included.
void CollectImages(const std::filesystem::path& folder, std::vector<FolderPlace>& above,
                   std::vector<std::filesystem::path>& files) {
  for (const auto& [path, type] : EntriesOf(folder)) {
    if (type == std::filesystem::file_type::directory) {
      const FolderPlace place = PlaceOf(path);
      if (std::find(above.begin(), above.end(), place) != above.end()) {
        ThrowBadFile(path, "is a link to a folder that it lies in; remove it");
      }
      above.push_back(place);
      CollectImages(path, above, files);
      above.pop_back();
    } else if (HasImageEnding(path)) {
      RequireRegular(path, type);
      files.push_back(path);
    }
  }
}

// Sorted by name, which is the order of classes and of images.
std::vector<std::filesystem::path> ImagesBelow(const std::filesystem::path& split,
                                               const std::filesystem::path& folder) {
  std::vector<FolderPlace> above = {PlaceOf(split)};
  if (folder != split) above.push_back(PlaceOf(folder));
  if (above.size() > 1 && above[0] == above[1])
    ThrowBadFile(folder, "is a link to a folder that it lies in; remove it");
  std::vector<std::filesystem::path> files;
  CollectImages(folder, above, files);
  std::sort(files.begin(), files.end());
  return files;
}

struct ImageClass {
  std::string name;
  std::vector<std::filesystem::path> files;
};

// Of classes with these many images together `most`, each as many as any other as far as it has them.
std::vector<std::size_t> EvenShares(const std::vector<ImageClass>& classes, std::size_t most) {
  std::vector<std::size_t> order(classes.size()), shares(classes.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return classes[a].files.size() < classes[b].files.size(); });
  for (std::size_t i = 0; i < order.size(); ++i) {
    shares[order[i]] = std::min(classes[order[i]].files.size(), most / (order.size() - i));
    most -= shares[order[i]];
  }
  return shares;
}

// `most`: of all classes together; 0: all.
std::vector<ImageClass> ClassesIn(const std::filesystem::path& folder, int most) {
  std::vector<ImageClass> classes;
  for (const auto& [path, type] : EntriesOf(folder)) {
    if (type != std::filesystem::file_type::directory) continue;
    classes.push_back({path.filename().string(), ImagesBelow(folder, path)});
  }
  if (classes.empty()) classes.push_back({kNoClass, ImagesBelow(folder, folder)});
  if (classes.front().name == kNoClass && classes.front().files.empty()) {
    ThrowBadFile(folder, "holds no images; give it a folder of them for every class, or images without classes");
  }
  for (const ImageClass& one : classes) {
    if (one.files.empty()) ThrowBadFile(folder / one.name, "holds no images (jpg, png, bmp, webp, ppm, pgm, tif)");
  }
  if (most <= 0) return classes;
  if (std::cmp_less(most, classes.size())) {
    throw Error(ErrorKind::kUsage,
                fmt::format("data.train_at_most: {} is less than the {} of {}; give an image a class "
                            "or more",
                            most, Counted(std::ssize(classes), "class", "classes"), folder.string()));
  }
  const auto shares = EvenShares(classes, static_cast<std::size_t>(most));
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const std::size_t count = classes[c].files.size();
    std::vector<std::filesystem::path> kept;
    for (std::size_t i = 0; i < shares[c]; ++i) kept.push_back(std::move(classes[c].files[i * count / shares[c]]));
    classes[c].files = std::move(kept);
  }
  return classes;
}

std::filesystem::path RequireFolder(const char* key, const std::string& name, const Folders& folders) {
  for (const auto& place : folders) {
    std::error_code ignored;
    if (std::filesystem::is_directory(place / name, ignored)) return place / name;
    if (std::filesystem::exists(std::filesystem::symlink_status(place / name, ignored))) {
      (void)TypeOfOwn(place / name);
      ThrowBadFile(place / name, fmt::format("is no folder; data.{} names one that holds a folder of pictures for "
                                             "every class",
                                             key));
    }
  }
  throw Error(ErrorKind::kNotFound, fmt::format("data.{}: no folder {} in {}", key, name, JoinedFolders(folders)));
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
                  const std::vector<std::string>& names, const DataOptions& options) {
  std::vector<std::filesystem::path> files;
  std::vector<std::int64_t> labels;
  const bool unlabelled = classes.front().name == kNoClass;
  for (const ImageClass& one : classes) {
    const auto name = std::find(names.begin(), names.end(), one.name);
    if (name == names.end() && !unlabelled) {
      ThrowBadFile(folder / one.name, fmt::format("is a class that {} does not have", options.train));
    }
    files.insert(files.end(), one.files.begin(), one.files.end());
    labels.insert(labels.end(), one.files.size(), unlabelled ? 0 : name - names.begin());
  }
  const QuietDecoders quiet;
  torch::Tensor first = DecodePicture(files.front(), options.channels);
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
        const torch::Tensor pixels = Sized(DecodePicture(file, options.channels), file, options);
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
               static_cast<int>(names.size())};
  if (unlabelled) SetUnlabelled(data);
  RowNames rows{.classes = names};
  rows.place = [files = std::move(files)](std::int64_t row) { return files[static_cast<std::size_t>(row)].string(); };
  data.names = std::make_shared<const RowNames>(std::move(rows));
  return data;
}

// Which class every file is of: the files' contents do not say that.
std::string LayoutOf(const std::vector<ImageClass>& classes) {
  std::string layout;
  bool own_maximum = false;
  for (const ImageClass& one : classes) {
    layout += fmt::format("{}\n{}\n", one.name, one.files.size());
    own_maximum = own_maximum || std::any_of(one.files.begin(), one.files.end(), [](const auto& file) {
                    const std::string ending = EndingOf(file);
                    return ending == ".ppm" || ending == ".pgm" || ending.starts_with(".tif");
                  });
  }
  return own_maximum ? layout + "scaled by their maximum\n" : layout;  // which they were not once
}

std::vector<std::filesystem::path> FilesOf(const std::vector<ImageClass>& classes) {
  std::vector<std::filesystem::path> files;
  for (const ImageClass& one : classes) files.insert(files.end(), one.files.begin(), one.files.end());
  return files;
}

std::int64_t CountOf(const std::vector<ImageClass>& classes) {
  std::int64_t count = 0;
  for (const ImageClass& one : classes) count += std::ssize(one.files);
  return count;
}

// By number: those of the training split, or of the test split where that one has none.
std::vector<std::string> NamesOf(const std::vector<ImageClass>& train, const std::vector<ImageClass>& test) {
  std::vector<std::string> names;
  for (const ImageClass& one : train.front().name == kNoClass ? test : train) {
    if (one.name != kNoClass) names.push_back(one.name);
  }
  return names;
}

}  // namespace

DataFiles FolderFiles(const DataOptions& options, const Folders& folders) {
  const auto train = ClassesIn(RequireFolder("train", options.train, folders), options.train_at_most);
  const auto test = ClassesIn(RequireFolder("test", options.test, folders), 0);
  return {FilesOf(train), FilesOf(test), LayoutOf(train), LayoutOf(test), CountOf(train), CountOf(test)};
}

std::vector<std::string> FolderClassNames(const DataOptions& options, const Folders& folders) {
  return NamesOf(ClassesIn(RequireFolder("train", options.train, folders), 0),
                 ClassesIn(RequireFolder("test", options.test, folders), 0));
}

DataSplits LoadFolder(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const auto train = RequireFolder("train", options.train, folders);
  const auto test = RequireFolder("test", options.test, folders);
  const auto classes = ClassesIn(train, options.train_at_most), test_classes = ClassesIn(test, 0);
  const auto names = NamesOf(classes, test_classes);
  DataSplits splits;
  splits.train = ReadSplit("train", train, classes, names, options);
  splits.test = ReadSplit("test", test, test_classes, names, options);
  if (splits.train.images.sizes().slice(1) != splits.test.images.sizes().slice(1)) {
    ThrowBadFile(test,
                 fmt::format("images of {} x {} pixels, but those of {} have {} x {}; set data.resize and data.crop",
                             splits.test.images.size(2), splits.test.images.size(3), train.string(),
                             splits.train.images.size(2), splits.train.images.size(3)));
  }
  return splits;
}

}  // namespace bitplan
