#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <iterator>
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

DataOptions Options() { return OwnData("folder"); }

// Two classes of two pictures each in both splits.
void WritePictures(const TemporaryFolder& folder) {
  for (const std::string split : {"train/", "test/"}) {
    folder.Write(split + "b/1.ppm", Plain(4, 4, {10, 20, 30}));
    folder.Write(split + "b/deeper/2.ppm", Plain(4, 4, {40, 50, 60}));
    folder.Write(split + "a/x.PPM", Plain(4, 4, {70, 80, 90}));
    folder.Write(split + "a/notes.txt", "no picture");
    folder.Write(split + "a/.hidden.ppm", "no picture either");
    folder.Write(split + "a/.ipynb_checkpoints/x.ppm", "nor this");
    folder.Write(split + ".git/y.ppm", "nor this");
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
  CHECK(files.train_layout == "a\n2\nb\n2\nscaled by their maximum\n");
  CHECK(files.train_rows == 4);
  CHECK(files.test_rows == 1);
  const Dataset train = source.load(options, {folder.path()}, 1).train;
  CHECK(torch::equal(train.labels, torch::tensor(std::vector<std::int64_t>{0, 0, 1, 1})));
}

TEST_CASE("folder: what small classes cannot give of a part of the training pictures the others give") {
  const TemporaryFolder folder;
  const std::pair<std::string, int> classes[] = {{"a", 10}, {"b", 1}, {"c", 4}};
  for (const auto& [name, count] : classes) {
    for (int i = 0; i < count; ++i) folder.Write("train/" + name + "/" + std::to_string(i) + ".png", "");
  }
  folder.Write("test/a/0.png", "");
  const auto layout = [&](int most) {
    DataOptions options = Options();
    options.train_at_most = most;
    return FindDatasetSource("folder").files(options, {folder.path()}).train_layout;
  };
  CHECK(layout(9) == "a\n4\nb\n1\nc\n4\n");
  CHECK(layout(8) == "a\n4\nb\n1\nc\n3\n");
  CHECK(layout(14) == "a\n9\nb\n1\nc\n4\n");
  CHECK(layout(3) == "a\n1\nb\n1\nc\n1\n");
  CHECK(layout(100) == "a\n10\nb\n1\nc\n4\n");
  CHECK_THAT(LineOf([&] { (void)layout(2); }),
             ContainsSubstring("data.train_at_most: 2 is less than the 3 classes of "));
}

// The first row of the only picture, by channel.
std::vector<int> FirstRow(const std::string& name, const std::string& bytes, const std::string& channels = "gray") {
  const TemporaryFolder folder;
  folder.Write("train/a/" + name, bytes);
  folder.Write("test/a/" + name, bytes);
  DataOptions options = Options();
  options.channels = channels;
  const torch::Tensor row =
      FindDatasetSource("folder").load(options, {folder.path()}, 1).test.images[0].select(1, 0).flatten();
  const torch::Tensor wide = row.to(torch::kInt32).contiguous();
  return {wide.data_ptr<int>(), wide.data_ptr<int>() + wide.numel()};
}

TEST_CASE("folder: pixels are shares of the largest value that the file can hold") {
  const auto bytes = [](std::initializer_list<int> values) {
    std::string text;
    for (const int value : values) text += static_cast<char>(value);
    return text;
  };
  CHECK(FirstRow("x.pgm", "P5\n3 1\n100\n" + bytes({0, 50, 100})) == std::vector<int>{0, 128, 255});
  CHECK(FirstRow("x.pgm", "P5 3 1 1000\n" + bytes({0, 0, 1, 0xf4, 3, 0xe8})) == std::vector<int>{0, 128, 255});
  CHECK(FirstRow("x.pgm", "P5 2 1 255 " + bytes({7, 255})) == std::vector<int>{7, 255});
  CHECK(FirstRow("x.ppm", "P6 1 1 3\n" + bytes({1, 2, 3}), "rgb") == std::vector<int>{85, 170, 255});
  CHECK(FirstRow("x.ppm", "P6 1 1 3\n" + bytes({1, 2, 3}), "bgr") == std::vector<int>{255, 170, 85});
  CHECK(FirstRow("x.pgm", "P5 1 1 255\n" + bytes({9}), "rgb") == std::vector<int>{9, 9, 9});
  // As text, without a line end behind the last number.
  CHECK(FirstRow("x.pgm", "P2\n# by hand\n3 1\n15\n0 5\n15") == std::vector<int>{0, 85, 255});
  CHECK(FirstRow("x.ppm", "P3\n1 1 # one\n255\n1 2 3", "rgb") == std::vector<int>{1, 2, 3});
  for (const std::string ending : {".png", ".tif"}) {
    const TemporaryFolder folder;
    const std::string file = (folder.path() / ("x" + ending)).string();
    cv::Mat deep(1, 3, CV_16UC1);
    deep.at<std::uint16_t>(0, 0) = 255;  // a 257th part of all
    deep.at<std::uint16_t>(0, 1) = 0x80ff;
    deep.at<std::uint16_t>(0, 2) = 65535;
    REQUIRE(cv::imwrite(file, deep));
    std::ifstream in(file, std::ios::binary);
    const std::string written{std::istreambuf_iterator<char>(in), {}};
    CHECK(FirstRow("x" + ending, written) == std::vector<int>{1, 128, 255});
    CHECK(FirstRow("x" + ending, written, "rgb").front() == 1);
  }
}

TEST_CASE("folder: a PNM file that is not what its header says is refused in one line") {
  const auto why = [](const std::string& bytes) { return LineOf([&] { (void)FirstRow("x.pgm", bytes); }); };
  CHECK_THAT(why("P5\n3 1\n100\n\1\2\145"), ContainsSubstring("the value 101 is above the maximum 100"));
  CHECK_THAT(why("P5\n3 1\n255\nab"), ContainsSubstring("it ends before the 3 values that its header announces"));
  CHECK_THAT(why("P2\n3 1\n255\n1 2"), ContainsSubstring("it ends before the 3 values"));
  CHECK_THAT(why("P2\n3 1\n255\n1 2 x   "), ContainsSubstring("it ends before the 3 values"));
  CHECK_THAT(why("P5\n3 1\n0\nabc"), ContainsSubstring("its maximum is no number in 1..65535"));
  CHECK_THAT(why("P5\n3"), ContainsSubstring("its height is no number"));
  CHECK_THAT(why("P5\n999999 999999\n255\nabc"), ContainsSubstring("it ends before the"));
  CHECK_THAT(why("P5 99999999999999999999 1 255\nabc"), ContainsSubstring("its width is no number"));
}

// What the action writes to the standard error stream, through whatever library.
std::string SaidOnStderr(const TemporaryFolder& folder, const std::function<void()>& action) {
  const std::filesystem::path file = folder.path() / "said.txt";
  const int kept = dup(STDERR_FILENO), said = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  dup2(said, STDERR_FILENO);
  action();
  std::fflush(stderr);
  dup2(kept, STDERR_FILENO);
  close(kept);
  close(said);
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_CASE("folder: a picture that is cut off is one line, and the decoder's own are not seen") {
  for (const std::string ending : {".png", ".jpg"}) {
    const TemporaryFolder folder;
    WritePictures(folder);
    cv::Mat picture(64, 64, CV_8UC3);
    cv::randu(picture, 0, 255);
    const std::filesystem::path file = folder.path() / ("train/a/cut" + ending);
    REQUIRE(cv::imwrite(file.string(), picture));
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    std::string why;
    const std::string said =
        SaidOnStderr(folder, [&] { why = LineOf([&] { (void)LoadData(Options(), {folder.path()}, 1); }); });
    CHECK_THAT(why, ContainsSubstring("cut" + ending + ": cannot be decoded as an image"));
    CHECK(said.empty());
  }
}

TEST_CASE("folder: links that lead nowhere and what is no file are named, and nothing is waited for") {
  const auto why = [](const std::function<void(const std::filesystem::path&)>& spoil) {
    const TemporaryFolder folder;
    WritePictures(folder);
    spoil(folder.path() / "train");
    return LineOf([&] { (void)LoadData(Options(), {folder.path()}, 1); });
  };
  using std::filesystem::create_directory_symlink;
  using std::filesystem::create_symlink;
  using Path = std::filesystem::path;
  CHECK_THAT(why([](const Path& train) { create_symlink("/no/such.jpg", train / "a/gone.jpg"); }),
             ContainsSubstring("train/a/gone.jpg: is a link to nowhere, /no/such.jpg"));
  CHECK_THAT(why([](const Path& train) { create_symlink("../cats", train / "cat"); }),
             ContainsSubstring("train/cat: is a link to nowhere, ../cats"));
  CHECK_THAT(why([](const Path& train) { create_symlink("self.jpg", train / "a/self.jpg"); }),
             ContainsSubstring("train/a/self.jpg: is a link that leads back to itself"));
  CHECK_THAT(why([](const Path& train) { create_directory_symlink("..", train / "a/up"); }),
             ContainsSubstring("train/a/up: is a link to a folder that it lies in"));
  CHECK_THAT(why([](const Path& train) { create_directory_symlink(".", train / "all"); }),
             ContainsSubstring("train/all: is a link to a folder that it lies in"));
  CHECK_THAT(why([](const Path& train) { REQUIRE(mkfifo((train / "b/pipe.jpg").c_str(), 0600) == 0); }),
             ContainsSubstring("train/b/pipe.jpg: is a named pipe, not a file"));
  CHECK_THAT(why([](const Path& train) {
               std::filesystem::remove_all(train);
               std::ofstream(train) << "no folder";
             }),
             ContainsSubstring("train: is no folder; data.train names one"));
  // A link to another folder or picture is as good as what it leads to.
  CHECK(why([](const Path& train) {
          create_directory_symlink("../test/b", train / "c");
          create_symlink("x.PPM", train / "a/again.ppm");
        }).empty());
}

TEST_CASE("folder: classes have names, and what is wrong with a picture is said with its file") {
  const TemporaryFolder folder;
  WritePictures(folder);
  const DatasetSource& source = FindDatasetSource("folder");
  CHECK(source.class_names(Options(), {folder.path()}) == std::vector<std::string>{"a", "b"});
  const DataSplits splits = source.load(Options(), {folder.path()}, 1);
  const std::string picture = (folder.path() / "test/b/1.ppm").string();
  CHECK(splits.test.ImageName(1) == picture);
  CHECK(splits.test.Select(torch::tensor({2, 1})).ImageName(1) == picture);
  CHECK(LineOf([&] { CheckLabelsWithin(splits.test, 1, "model m"); }) ==
        picture +
            " is of class 1, 'b', but model m has 1 output, for the classes 0..0 of 2; take a model with an "
            "output for every class, or leave out the classes that it does not know");
}

TEST_CASE("folder: what cannot be read is said with its file") {
  const TemporaryFolder folder;
  WritePictures(folder);
  const auto says = [&](const DataOptions& options, ErrorKind kind, const std::string& words) {
    const auto load = [&] { (void)LoadData(options, {folder.path()}, 1); };
    CHECK(FailureOf(load).kind == kind);
    CHECK_THAT(LineOf(load), ContainsSubstring(words));
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
