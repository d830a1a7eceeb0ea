#include <zlib.h>

#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

std::string IdxImages(int count, int height = 3, int width = 2) {
  std::string bytes = BigEndian(0x00000803) + BigEndian(count) + BigEndian(height) + BigEndian(width);
  for (int i = 0; i < count * height * width; ++i) bytes += static_cast<char>((i * 37) & 255);
  return bytes;
}

std::string IdxLabels(int count) {
  std::string bytes = BigEndian(0x00000801) + BigEndian(count);
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(i % 10);
  return bytes;
}

std::string Gzip(const std::string& plain) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, plain.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

void WriteSplit(const TemporaryFolder& folder, const std::string& prefix, int count) {
  folder.Write(prefix + "-images-idx3-ubyte", IdxImages(count));
  folder.Write(prefix + "-labels-idx1-ubyte", IdxLabels(count));
}

void WriteSmallMnist(const TemporaryFolder& folder) {
  WriteSplit(folder, "mnist/train", 12);
  WriteSplit(folder, "mnist/t10k", 5);
}

DataSplits LoadMnist(const TemporaryFolder& folder, const std::string& name = "mnist", int calibration = 0) {
  DataOptions options;
  options.name = name;
  options.calibration = calibration;
  return LoadData(options, {folder.path()}, 1);
}

// What loading says once train-images holds `content`.
Failure FailureWithTrainImages(const std::string& content, const std::string& extension = "") {
  TemporaryFolder folder;
  WriteSmallMnist(folder);
  folder.Write("mnist/train-images-idx3-ubyte" + extension, content);
  const Failure failure = FailureOf([&] { (void)LoadMnist(folder); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring("train-images-idx3-ubyte"));
  return failure;
}

}  // namespace

TEST_CASE("a plain idx file gives the pixels and labels it holds, row by row") {
  TemporaryFolder folder;
  WriteSmallMnist(folder);
  const Dataset test = LoadMnist(folder).test;
  CHECK(test.name == "mnist/test");
  CHECK(test.classes == 10);
  REQUIRE(test.images.sizes() == at::IntArrayRef({5, 1, 3, 2}));
  CHECK(test.images.scalar_type() == torch::kUInt8);
  for (int i = 0; i < 30; ++i) CHECK(test.images.flatten()[i].item<int>() == ((i * 37) & 255));
  CHECK(test.labels.equal(torch::arange(5, torch::kInt64)));
}

TEST_CASE("a gzip idx file gives the same images as the plain one") {
  TemporaryFolder plain, packed;
  WriteSmallMnist(plain);
  for (const char* prefix : {"mnist/train", "mnist/t10k"}) {
    const int count = prefix[6] == 't' && prefix[7] == 'r' ? 12 : 5;
    packed.Write(std::string(prefix) + "-images-idx3-ubyte.gz", Gzip(IdxImages(count)));
    packed.Write(std::string(prefix) + "-labels-idx1-ubyte.gz", Gzip(IdxLabels(count)));
  }
  CHECK(LoadMnist(plain).train.images.equal(LoadMnist(packed).train.images));
  CHECK(LoadMnist(plain).test.labels.equal(LoadMnist(packed).test.labels));
}

TEST_CASE("a missing idx file names the file, the folders and the command that fetches it") {
  TemporaryFolder folder, recipe;
  WriteSmallMnist(folder);
  std::filesystem::remove(folder.path() / "mnist/t10k-labels-idx1-ubyte");
  DataOptions options;
  options.name = "mnist";
  const Failure failure = FailureOf([&] { (void)LoadData(options, {folder.path(), recipe.path()}, 1); });
  CHECK(failure.kind == ErrorKind::kNotFound);
  CHECK_THAT(failure.message, ContainsSubstring("mnist/t10k-labels-idx1-ubyte"));
  CHECK_THAT(failure.message, ContainsSubstring(folder.path().string() + ", " + recipe.path().string()));
  CHECK_THAT(failure.message, ContainsSubstring("run scripts/fetch-data " + folder.path().string() + " mnist"));
}

TEST_CASE("the recipe's folder is searched after the data folder") {
  TemporaryFolder empty, recipe;
  WriteSmallMnist(recipe);
  DataOptions options;
  options.name = "mnist";
  options.calibration = 0;
  CHECK(LoadData(options, {empty.path(), recipe.path()}, 1).train.size() == 12);
}

TEST_CASE("a truncated gzip file is reported as truncated") {
  const std::string packed = Gzip(IdxImages(12));
  for (const std::size_t keep : {packed.size() - 1, packed.size() / 2, std::size_t{12}}) {
    CAPTURE(keep);
    CHECK_THAT(FailureWithTrainImages(packed.substr(0, keep), ".gz").message, ContainsSubstring("truncated gzip"));
  }
}

TEST_CASE("a gzip file with a flipped bit is reported as damaged") {
  std::string packed = Gzip(IdxImages(12));
  packed[packed.size() - 6] = static_cast<char>(packed[packed.size() - 6] ^ 1);  // the checksum
  CHECK_THAT(FailureWithTrainImages(packed, ".gz").message, ContainsSubstring("damaged gzip"));
}

TEST_CASE("an idx file of another kind is refused with the magic it has and the one it should have") {
  const Failure failure = FailureWithTrainImages(IdxLabels(12));
  CHECK_THAT(failure.message, ContainsSubstring("wrong idx magic 00000801"));
  CHECK_THAT(failure.message, ContainsSubstring("expected 00000803"));
}

TEST_CASE("an idx file that ends early says how many bytes are missing") {
  const std::string bytes = IdxImages(12);
  CHECK_THAT(FailureWithTrainImages(bytes.substr(0, bytes.size() - 3)).message,
             ContainsSubstring("too short: 69 of 72 bytes"));
  CHECK_THAT(FailureWithTrainImages(bytes.substr(0, 9)).message, ContainsSubstring("idx header"));
  CHECK_THAT(FailureWithTrainImages("").message, ContainsSubstring("idx header"));
}

TEST_CASE("an idx header that promises more than any file of its size can hold is refused before memory is taken") {
  const std::string huge =
      BigEndian(0x00000803) + BigEndian(0xffffffff) + BigEndian(0xffffffff) + BigEndian(0xffffffff);
  CHECK_THAT(FailureWithTrainImages(huge).message, ContainsSubstring("too short"));
}

TEST_CASE("an idx file with bytes after its images is refused") {
  CHECK_THAT(FailureWithTrainImages(IdxImages(12) + "x").message, ContainsSubstring("trailing bytes"));
}

TEST_CASE("an idx file without images is refused as empty") {
  CHECK_THAT(FailureWithTrainImages(IdxImages(0)).message, ContainsSubstring("empty"));
}

TEST_CASE("image and label counts that differ are both reported") {
  const Failure failure = FailureWithTrainImages(IdxImages(11));
  CHECK_THAT(failure.message, ContainsSubstring("11 images"));
  CHECK_THAT(failure.message, ContainsSubstring("12 labels"));
}

TEST_CASE("a label that is not a digit is reported with its position") {
  TemporaryFolder folder;
  WriteSmallMnist(folder);
  std::string labels = IdxLabels(12);
  labels[8 + 7] = 10;
  folder.Write("mnist/train-labels-idx1-ubyte", labels);
  const Failure failure = FailureOf([&] { (void)LoadMnist(folder); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring("label 10 at position 7"));
  CHECK_THAT(failure.message, ContainsSubstring("train-labels-idx1-ubyte"));
}

TEST_CASE("fashion-mnist with its test files alone gives a test split and nothing to train on") {
  TemporaryFolder folder;
  WriteSplit(folder, "fashion-mnist/t10k", 5);
  const DataSplits splits = LoadMnist(folder, "fashion-mnist", 3);
  CHECK(splits.test.size() == 5);
  CHECK(splits.test.name == "fashion-mnist/test");
  CHECK(splits.train.size() == 0);
  CHECK(splits.calibration.size() == 0);
}

TEST_CASE("fashion-mnist with half of its training files is an error") {
  TemporaryFolder folder;
  WriteSplit(folder, "fashion-mnist/t10k", 5);
  folder.Write("fashion-mnist/train-labels-idx1-ubyte", IdxLabels(12));
  const Failure failure = FailureOf([&] { (void)LoadMnist(folder, "fashion-mnist"); });
  CHECK(failure.kind == ErrorKind::kNotFound);
  CHECK_THAT(failure.message, ContainsSubstring("fashion-mnist/train-images-idx3-ubyte"));
}

TEST_CASE("published MNIST has 60,000 and 10,000 images with the known label counts") {
  if (!std::filesystem::exists(PublishedData() / "mnist")) {
    WARN("skipped: no mnist in " << PublishedData());
    return;
  }
  DataOptions options;
  options.name = "mnist";
  const DataSplits splits = LoadData(options, {PublishedData()}, 1);
  CHECK(splits.train.size() == 55000);
  CHECK(splits.calibration.size() == 5000);
  CHECK(splits.test.images.sizes() == at::IntArrayRef({10000, 1, 28, 28}));
  CHECK(splits.test.labels.bincount()[1].item<int>() == 1135);
  const double pixels = splits.train.images.sum().item<double>() + splits.calibration.images.sum().item<double>();
  CHECK(pixels / 255 / (60000.0 * 784) == Approx(0.1307).margin(0.0001));
}
