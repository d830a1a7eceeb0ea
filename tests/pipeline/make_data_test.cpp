#include "bitplan/pipeline/make_data.h"

#include <stdlib.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bitplan/core/error.h"
#include "bitplan/core/random.h"
#include "bitplan/data/dataset.h"
#include "support/catch_torch.h"

using namespace bitplan;
using pipeline::MakeData;
using pipeline::MakeDataOptions;

namespace {

namespace fs = std::filesystem;

std::string BigEndian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

void Write(const fs::path& file, const std::string& bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << bytes;
}

std::string Read(const fs::path& file) {
  std::ostringstream bytes;
  bytes << std::ifstream(file, std::ios::binary).rdbuf();
  return bytes.str();
}

// A data folder with a small "MNIST": class k is a bar at height 4 + 6 k in faint noise.
class DataFolder {
 public:
  DataFolder() {
    std::string name = (fs::temp_directory_path() / "bitplan-make-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
    WriteSplit("train", 300);
    WriteSplit("t10k", 100);
  }
  ~DataFolder() { fs::remove_all(path); }

  [[nodiscard]] fs::path operator/(const std::string& name) const { return path / "ambiguous-mnist" / name; }
  [[nodiscard]] MakeDataOptions Options(std::uint64_t seed = 1) const {
    MakeDataOptions options{.name = "ambiguous-mnist", .data = path, .seed = seed, .digits = {}};
    auto& digits = options.digits;
    digits.train_images = 20;
    digits.test_images = 20;
    digits.labels = 3;
    digits.hidden = {24};
    digits.code = 4;
    digits.autoencoder_epochs = 2;
    digits.autoencoder_batch = 50;
    digits.architecture = "lenet-300-100";
    digits.networks = 2;
    digits.training.epochs = 1;
    digits.training.batch = 50;
    digits.most_information = 1.0;
    digits.pool = 2.0;
    return options;
  }
  fs::path path;

 private:
  void WriteSplit(const std::string& split, std::uint32_t count) const {
    RandomStream stream(3, "test/bars/" + split);
    std::string images = BigEndian(0x803) + BigEndian(count) + BigEndian(28) + BigEndian(28);
    std::string labels = BigEndian(0x801) + BigEndian(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto label = static_cast<int>(stream.Index(4));
      labels += static_cast<char>(label);
      for (int pixel = 0; pixel < 784; ++pixel) {
        const int row = pixel / 28 - 4 - 6 * label;
        images += static_cast<char>(stream.Index(30) + (row >= 0 && row < 3 ? 200 : 0));
      }
    }
    Write(path / ("mnist/" + split + "-images-idx3-ubyte"), images);
    Write(path / ("mnist/" + split + "-labels-idx1-ubyte"), labels);
  }
};

ErrorKind KindOf(const MakeDataOptions& options, std::string* message = nullptr) {
  try {
    (void)MakeData(options, SilentSink());
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.kind();
  }
  FAIL("no error");
  return ErrorKind::kInternal;
}

}  // namespace

TEST_CASE("made data are read as ambiguous-mnist and dirty-mnist, and made.json vouches for them") {
  const DataFolder folder;
  const auto report = MakeData(folder.Options(), SilentSink());
  CHECK(report.made);
  CHECK(report.train.images == 20);
  CHECK(report.train.drawn >= report.train.kept);
  CHECK(report.train.kept >= 40);
  CHECK(report.test.kept >= 40);
  CHECK(report.train.agreement > 0.0);
  CHECK(report.train.agreement < 1.0);
  std::int64_t counted = 0;
  for (const auto count : report.train.entropy_counts) counted += count;
  CHECK(counted == 20);

  DataOptions options;
  options.name = "ambiguous-mnist";
  options.calibration = 0;
  const DataSplits ambiguous = LoadData(options, {folder.path}, 1);
  CHECK(ambiguous.train.size() == 20 * 3);
  options.name = "dirty-mnist";
  CHECK(LoadData(options, {folder.path}, 1).train.size() == 300 + 20 * 3);
  const auto made = nlohmann::json::parse(Read(folder / "made.json"));
  CHECK(made.at("seed") == 1);
  CHECK(made.at("sha256").at("samples").get<std::string>().size() == 64);
}

TEST_CASE("data that are there already are left alone, and another seed makes others") {
  const DataFolder folder;
  const auto first = MakeData(folder.Options(), SilentSink());
  const auto samples = Read(folder / "amnist_samples.pt"), labels = Read(folder / "amnist_labels.pt");
  const auto made = Read(folder / "made.json");
  const auto when = fs::last_write_time(folder / "amnist_samples.pt");
  const auto again = MakeData(folder.Options(), SilentSink());
  CHECK_FALSE(again.made);
  CHECK(again.train.drawn == first.train.drawn);
  CHECK(again.test.entropy == first.test.entropy);
  CHECK(fs::last_write_time(folder / "amnist_samples.pt") == when);

  CHECK(MakeData(folder.Options(2), SilentSink()).made);
  CHECK(Read(folder / "amnist_samples.pt") != samples);
  CHECK(MakeData(folder.Options(), SilentSink()).made);
  CHECK(Read(folder / "amnist_samples.pt") == samples);
  CHECK(Read(folder / "amnist_labels.pt") == labels);
  CHECK(Read(folder / "made.json") == made);
}

TEST_CASE("a missing file is made again") {
  const DataFolder folder;
  (void)MakeData(folder.Options(), SilentSink());
  const auto labels = Read(folder / "amnist_labels.pt");
  fs::remove(folder / "amnist_labels.pt");
  CHECK(MakeData(folder.Options(), SilentSink()).made);
  CHECK(Read(folder / "amnist_labels.pt") == labels);
}

TEST_CASE("files that were not made here, or were changed since, are never replaced") {
  const DataFolder folder;
  for (const char* name : {"amnist_samples.pt", "amnist_labels.pt", "made.json"}) {
    CAPTURE(name);
    Write(folder / name, "theirs");
    std::string message;
    CHECK(KindOf(folder.Options(), &message) == ErrorKind::kUsage);
    CHECK_THAT(message, ContainsSubstring((folder / name).string()));
    CHECK(Read(folder / name) == "theirs");
    fs::remove_all(folder.path / "ambiguous-mnist");
  }
  (void)MakeData(folder.Options(), SilentSink());
  Write(folder / "amnist_samples.pt", Read(folder / "amnist_samples.pt") + "x");
  CHECK(KindOf(folder.Options(2)) == ErrorKind::kUsage);
  CHECK(KindOf(folder.Options()) == ErrorKind::kUsage);
}

TEST_CASE("without MNIST, or with options out of range, nothing is made") {
  const DataFolder folder;
  auto options = folder.Options();
  options.digits.networks = 0;
  CHECK(KindOf(options) == ErrorKind::kUsage);
  options = folder.Options();
  options.digits.test_images = 12;  // the cut in the middle would put test images into training
  CHECK(KindOf(options) == ErrorKind::kUsage);
  fs::remove(folder.path / "mnist/t10k-labels-idx1-ubyte");
  std::string message;
  CHECK(KindOf(folder.Options(), &message) == ErrorKind::kNotFound);
  CHECK_THAT(message, ContainsSubstring("t10k-labels") && ContainsSubstring("fetch-data"));
  options = folder.Options();
  options.name = "ambigous-mnist";
  CHECK(KindOf(options, &message) == ErrorKind::kUsage);
  CHECK_THAT(message, ContainsSubstring("nearest: ambiguous-mnist"));
  CHECK_FALSE(fs::exists(folder.path / "ambiguous-mnist"));
}
