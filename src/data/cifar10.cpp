// CIFAR-10, binary version (A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009): records of
// one label byte and 3,072 pixel bytes, the red, green and blue planes of 32x32, row by row.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "data/sources.h"

namespace bitplan {
namespace {

constexpr std::int64_t kPixels = 3 * 32 * 32;
constexpr std::int64_t kRecord = 1 + kPixels;
constexpr std::int64_t kBlock = 512;  // records read at once
constexpr int kCifarClasses = 10;

std::int64_t CountRecords(const std::filesystem::path& file) {
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file));
  if (size == 0) ThrowBadFile(file, "holds no images");
  if (size % kRecord != 0) {
    ThrowBadFile(file, fmt::format("{}, not a multiple of the CIFAR-10 record size {}; fetch it again",
                                   Counted(size, "byte"), kRecord));
  }
  return size / kRecord;
}

void ReadRecords(const std::filesystem::path& file, std::int64_t records, std::uint8_t* images, std::int64_t* labels) {
  std::ifstream in(file, std::ios::binary);
  std::vector<char> block(kBlock * kRecord);
  for (std::int64_t first = 0; first < records; first += kBlock) {
    ThrowIfInterrupted();
    const std::int64_t count = std::min(kBlock, records - first);
    if (!in.read(block.data(), count * kRecord)) ThrowBadFile(file, "cannot be read to its end; check its permissions");
    for (std::int64_t i = 0; i < count; ++i) {
      const char* record = block.data() + i * kRecord;
      const int label = static_cast<unsigned char>(record[0]);
      if (label >= kCifarClasses) {
        ThrowBadFile(file, fmt::format("record {} has label {}; expected 0..{}", first + i, label, kCifarClasses - 1));
      }
      labels[first + i] = label;
      std::memcpy(images + (first + i) * kPixels, record + 1, kPixels);
    }
  }
}

Dataset ReadCifarSplit(const std::string& name, const std::vector<std::filesystem::path>& files) {
  std::vector<std::int64_t> counts;
  std::int64_t total = 0;
  for (const auto& file : files) {
    counts.push_back(CountRecords(file));
    total += counts.back();
  }
  Dataset data{name, torch::empty({total, 3, 32, 32}, torch::kUInt8), torch::empty({total}, torch::kInt64),
               kCifarClasses};
  std::int64_t row = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    ReadRecords(files[i], counts[i], data.images.data_ptr<std::uint8_t>() + row * kPixels,
                data.labels.data_ptr<std::int64_t>() + row);
    row += counts[i];
  }
  return data;
}

}  // namespace

DataFiles Cifar10Files(const DataOptions&, const Folders& folders) {
  const auto require = [&](const std::string& file) {
    return RequireFile({"cifar-10-batches-bin/" + file}, folders, "cifar10");
  };
  DataFiles files;
  for (int batch = 1; batch <= 5; ++batch) files.train.push_back(require(fmt::format("data_batch_{}.bin", batch)));
  files.test.push_back(require("test_batch.bin"));
  return files;
}

DataSplits LoadCifar10(const DataOptions& options, const Folders& folders, std::uint64_t) {
  const DataFiles files = Cifar10Files(options, folders);
  DataSplits splits;
  splits.train = ReadCifarSplit("cifar10/train", files.train);
  splits.test = ReadCifarSplit("cifar10/test", files.test);
  return splits;
}

}  // namespace bitplan
