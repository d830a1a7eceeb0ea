#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

constexpr int kRecord = 3073;

// Records with label i % 10 and planes filled with i, i + 50, i + 100; the first pixel of each plane is one more.
std::string Records(int count, int first = 0) {
  std::string bytes;
  for (int i = first; i < first + count; ++i) {
    bytes += static_cast<char>(i % 10);
    for (int plane = 0; plane < 3; ++plane) {
      bytes += static_cast<char>(i + 50 * plane + 1);
      bytes += std::string(1023, static_cast<char>(i + 50 * plane));
    }
  }
  return bytes;
}

std::string Batch(int number) { return "cifar-10-batches-bin/data_batch_" + std::to_string(number) + ".bin"; }

void WriteCifar(const TemporaryFolder& folder) {
  for (int i = 1; i <= 5; ++i) folder.Write(Batch(i), Records(4, 4 * (i - 1)));
  folder.Write("cifar-10-batches-bin/test_batch.bin", Records(600));
}

DataSplits LoadCifar(const TemporaryFolder& folder, int calibration = 0) {
  DataOptions options;
  options.name = "cifar10";
  options.calibration = calibration;
  return LoadData(options, {folder.path()}, 1);
}

}  // namespace

TEST_CASE("CIFAR-10 records become images of three planes and all five batches are read") {
  TemporaryFolder folder;
  WriteCifar(folder);
  const DataSplits splits = LoadCifar(folder);
  CHECK(splits.train.size() == 20);
  CHECK(splits.train.images.select(1, 0).select(1, 1).select(1, 1).to(torch::kInt64).sum().item<int>() == 190);
  REQUIRE(splits.test.images.sizes() == at::IntArrayRef({600, 3, 32, 32}));
  for (const int row : {0, 7, 512, 599}) {
    CAPTURE(row);
    for (int plane = 0; plane < 3; ++plane) {
      const torch::Tensor pixels = splits.test.images[row][plane];
      CHECK(pixels[0][0].item<int>() == ((row + 50 * plane + 1) & 255));
      CHECK(pixels.flatten().slice(0, 1).eq((row + 50 * plane) & 255).all().item<bool>());
    }
    CHECK(splits.test.labels[row].item<int>() == row % 10);
  }
}

TEST_CASE("a missing CIFAR-10 batch names the file and the command that fetches it") {
  TemporaryFolder folder;
  WriteCifar(folder);
  std::filesystem::remove(folder.path() / Batch(4));
  const Failure failure = FailureOf([&] { (void)LoadCifar(folder); });
  CHECK(failure.kind == ErrorKind::kNotFound);
  CHECK_THAT(failure.message, ContainsSubstring(Batch(4)));
  CHECK_THAT(failure.message, ContainsSubstring("run scripts/fetch-data " + folder.path().string() + " cifar10"));
}

TEST_CASE("a CIFAR-10 file that is cut off inside a record is refused with its size") {
  TemporaryFolder folder;
  WriteCifar(folder);
  folder.Write(Batch(2), Records(4).substr(0, 4 * kRecord - 1));
  const Failure failure = FailureOf([&] { (void)LoadCifar(folder); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring(Batch(2)));
  CHECK_THAT(failure.message, ContainsSubstring("12,291 bytes") && ContainsSubstring("3073"));
}

TEST_CASE("an empty CIFAR-10 file is refused") {
  TemporaryFolder folder;
  WriteCifar(folder);
  folder.Write(Batch(1), "");
  const Failure failure = FailureOf([&] { (void)LoadCifar(folder); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring("holds no images"));
}

TEST_CASE("a CIFAR-10 record with label 17 is reported with its file and record number") {
  TemporaryFolder folder;
  WriteCifar(folder);
  std::string records = Records(600);
  records[555 * kRecord] = 17;
  folder.Write("cifar-10-batches-bin/test_batch.bin", records);
  const Failure failure = FailureOf([&] { (void)LoadCifar(folder); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring("test_batch.bin") && ContainsSubstring("record 555 has label 17"));
}

TEST_CASE("published CIFAR-10 has 1,000 test images of every class") {
  if (!std::filesystem::exists(PublishedData() / "cifar-10-batches-bin")) {
    WARN("skipped: no cifar-10-batches-bin in " << PublishedData());
    return;
  }
  DataOptions options;
  options.name = "cifar10";
  const DataSplits splits = LoadData(options, {PublishedData()}, 1);
  CHECK(splits.train.size() == 45000);
  CHECK(splits.calibration.size() == 5000);
  CHECK(splits.test.labels.bincount().eq(1000).all().item<bool>());
}
