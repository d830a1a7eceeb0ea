#include <array>
#include <opencv2/imgcodecs.hpp>

#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

// A binary PPM, RGB in rows.
std::string Ppm(int wide, int high, const std::function<std::array<int, 3>(int x, int y)>& pixel) {
  std::string text = "P6\n" + std::to_string(wide) + " " + std::to_string(high) + "\n255\n";
  for (int y = 0; y < high; ++y) {
    for (int x = 0; x < wide; ++x) {
      for (const int value : pixel(x, y)) text += static_cast<char>(value);
    }
  }
  return text;
}

std::string Plain(int wide, int high, std::array<int, 3> color) {
  return Ppm(wide, high, [&](int, int) { return color; });
}

DataOptions Options() {
  DataOptions options;
  options.name = "folder";
  options.train = "train";
  options.test = "test";
  options.calibration = 0;
  return options;
}

// Two classes of two pictures each in both splits.
void WritePictures(const TemporaryFolder& folder) {
  for (const std::string split : {"train/", "test/"}) {
    folder.Write(split + "b/1.ppm", Plain(4, 4, {10, 20, 30}));
    folder.Write(split + "b/deeper/2.ppm", Plain(4, 4, {40, 50, 60}));
    folder.Write(split + "a/x.PPM", Plain(4, 4, {70, 80, 90}));
    folder.Write(split + "a/notes.txt", "no picture");
    folder.Write(split + "a/.hidden.ppm", "no picture either");
  }
}

TEST_CASE("folder: classes are numbered by name, pictures of all depths are read, other files are not") {
  const TemporaryFolder folder;
  WritePictures(folder);
  const Dataset test = LoadData(Options(), {folder.path()}, 1).test;
  CHECK(test.classes == 2);
  CHECK(torch::equal(test.labels, torch::tensor(std::vector<std::int64_t>{0, 1, 1})));
  CHECK(test.images.sizes() == c10::IntArrayRef({3, 3, 4, 4}));
  CHECK(test.images.select(2, 0).select(2, 0).equal(
      torch::tensor({70, 80, 90, 10, 20, 30, 40, 50, 60}, torch::kUInt8).reshape({3, 3})));
}

TEST_CASE("folder: channels in the order that the recipe asks for") {
  const TemporaryFolder folder;
  WritePictures(folder);
  DataOptions options = Options();
  options.channels = "bgr";
  CHECK(LoadData(options, {folder.path()}, 1).test.images[0][0][0][0].item<int>() == 90);
  options.channels = "gray";
  const Dataset gray = LoadData(options, {folder.path()}, 1).test;
  CHECK(gray.images.size(1) == 1);
  CHECK(gray.images[0][0][0][0].item<int>() == 78);  // 0.299 * 70 + 0.587 * 80 + 0.114 * 90
}

TEST_CASE("folder: the shorter side is resized with antialiasing, and a square is cut from the middle") {
  const TemporaryFolder folder;
  // Stripes of one pixel: without antialiasing a smaller picture would show some of them in full.
  const std::string stripes = Ppm(64, 32, [](int x, int) {
    const int value = x % 2 == 0 ? 0 : 255;
    return std::array<int, 3>{value, value, x};
  });
  for (const std::string split : {"train/", "test/"}) {
    folder.Write(split + "a/1.ppm", stripes);
    folder.Write(split + "a/2.ppm", stripes);
  }
  DataOptions options = Options();
  options.resize = 8;
  options.crop = 6;
  const torch::Tensor picture = LoadData(options, {folder.path()}, 1).test.images[0].to(torch::kFloat32);
  CHECK(picture.sizes() == c10::IntArrayRef({3, 6, 6}));
  CHECK((picture[0] - 127.5).abs().max().item<float>() < 24.0F);
  // 64 x 32 becomes 16 x 8; columns 5 to 10 of these 16 are left, around 22, 26, .. 42 of the picture.
  CHECK(picture[2][3][0].item<float>() == Approx(21.5).margin(1.0));
  CHECK(picture[2][3][5].item<float>() == Approx(41.5).margin(1.0));
}

TEST_CASE("folder: JPEG and PNG are decoded") {
  const TemporaryFolder folder;
  WritePictures(folder);
  const cv::Mat picture(4, 4, CV_8UC3, cv::Scalar(200, 100, 50));  // blue, green, red
  for (const std::string name : {"train/a/y.png", "test/a/y.png", "train/a/z.jpg", "test/a/z.jpg"}) {
    REQUIRE(cv::imwrite((folder.path() / name).string(), picture));
  }
  const Dataset test = LoadData(Options(), {folder.path()}, 1).test;
  REQUIRE(test.size() == 5);
  CHECK(test.images[1].flatten(1).select(1, 0).equal(torch::tensor({50, 100, 200}, torch::kUInt8)));
  CHECK((test.images[2].to(torch::kInt32) - test.images[1].to(torch::kInt32)).abs().max().item<int>() <= 3);
}

TEST_CASE("folder: a part of the training pictures is taken evenly, of every class") {
  const TemporaryFolder folder;
  for (int i = 0; i < 10; ++i) {
    for (const std::string name : {"a", "b"}) {
      folder.Write("train/" + name + "/" + std::to_string(i) + ".ppm", Plain(2, 2, {i, i, i}));
    }
  }
  folder.Write("test/a/0.ppm", Plain(2, 2, {0, 0, 0}));
  DataOptions options = Options();
  options.train_at_most = 4;
  const DatasetSource& source = FindDatasetSource("folder");
  const DataFiles files = source.files(options, {folder.path()});
  REQUIRE(files.train.size() == 4);
  CHECK(files.train[1].filename() == "5.ppm");
  CHECK(files.train_layout == "a\n2\nb\n2\n");
  const Dataset train = source.load(options, {folder.path()}, 1).train;
  CHECK(torch::equal(train.labels, torch::tensor(std::vector<std::int64_t>{0, 0, 1, 1})));
}

TEST_CASE("folder: what cannot be read is said with its file") {
  const TemporaryFolder folder;
  WritePictures(folder);
  const auto failure = [&](const DataOptions& options) {
    return FailureOf([&] { (void)LoadData(options, {folder.path()}, 1); });
  };
  const auto says = [&](const DataOptions& options, ErrorKind kind, const std::string& words) {
    const Failure seen = failure(options);
    CHECK(seen.kind == kind);
    CHECK_THAT(seen.message, ContainsSubstring(words));
    CHECK(seen.message.find('\n') == std::string::npos);
  };
  DataOptions options = Options();
  options.train = "nowhere";
  says(options, ErrorKind::kNotFound, "data.train: no folder nowhere in ");
  options = Options();
  options.crop = 8;
  says(options, ErrorKind::kData, "has 4 x 4 pixels, less than data.crop 8");
  options = Options();
  options.resize = 1 << 20;
  says(options, ErrorKind::kUsage, "GiB of memory; set data.resize");

  folder.Write("test/b/odd.ppm", Plain(5, 4, {0, 0, 0}));
  says(Options(), ErrorKind::kData, "odd.ppm: is 4 x 5 pixels, but ");
  folder.Write("test/b/odd.ppm", "P6\n5 4\n255\n");
  says(Options(), ErrorKind::kData, "odd.ppm: cannot be decoded as an image");
  std::filesystem::remove(folder.path() / "test/b/odd.ppm");
  folder.Write("test/c/1.ppm", Plain(4, 4, {0, 0, 0}));
  says(Options(), ErrorKind::kData, "c: is a class that train does not have");
  std::filesystem::remove_all(folder.path() / "test/c");
  std::filesystem::create_directories(folder.path() / "train/empty");
  says(Options(), ErrorKind::kData, "empty: holds no images");
  std::filesystem::remove_all(folder.path() / "train");
  folder.Write("train/1.ppm", Plain(4, 4, {0, 0, 0}));
  const DataSplits unlabelled = FindDatasetSource("folder").load(Options(), {folder.path()}, 1);
  CHECK(unlabelled.train.unlabelled);
  CHECK_FALSE(unlabelled.test.unlabelled);
  CHECK(unlabelled.test.classes == 2);
  std::filesystem::remove(folder.path() / "train/1.ppm");
  says(Options(), ErrorKind::kData, "train: holds no images; give it a folder of them for every class");
}

}  // namespace
