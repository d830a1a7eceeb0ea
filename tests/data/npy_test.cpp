#include <cmath>
#include <cstring>

#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string Npy(const std::string& type, const std::string& shape, const std::string& bytes, int version = 1,
                const char* fortran = "False") {
  std::string header = "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
  header += std::string(64 - (header.size() + (version == 1 ? 11 : 13)) % 64, ' ') + "\n";
  std::string file = "\x93NUMPY";
  file += {static_cast<char>(version), '\0'};
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>(header.size() >> 8 * i & 255);
  return file + header + bytes;
}

std::string FourImages() {
  std::vector<std::uint8_t> pixels(4 * 2 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(10 * i);
  return Npy("|u1", "(4, 2, 3)", Bytes(pixels));
}

std::string FourLabels() { return Npy("<i8", "(4,)", Bytes<std::int64_t>({0, 2, 1, 2})); }

DataSplits LoadTest(const TemporaryFolder& folder, const std::string& images, const std::string& labels) {
  folder.Write("x.npy", images);
  folder.Write("y.npy", labels);
  DataOptions options;
  options.name = "npy";
  options.train_images = options.test_images = "x.npy";
  options.train_labels = options.test_labels = "y.npy";
  options.calibration = 0;
  return LoadData(options, {folder.path()}, 1);
}

Dataset Loaded(const std::string& images, const std::string& labels) {
  TemporaryFolder folder;
  return LoadTest(folder, images, labels).test;
}

Failure FailureWith(const std::string& images, const std::string& labels, const std::string& culprit) {
  const Failure failure = FailureOf([&] { (void)Loaded(images, labels); });
  CHECK(failure.thrown);
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring(culprit + ": "));
  return failure;
}

}  // namespace

TEST_CASE("npy bytes [N, H, W] become images of one channel with their labels and the number of classes") {
  const Dataset data = Loaded(FourImages(), FourLabels());
  REQUIRE(data.images.sizes() == at::IntArrayRef({4, 1, 2, 3}));
  CHECK(data.images.scalar_type() == torch::kUInt8);
  CHECK(data.images[3][0][1][2].item<int>() == 230);
  CHECK(data.labels.equal(torch::tensor({0, 2, 1, 2}, torch::kInt64)));
  CHECK(data.classes == 3);
  CHECK(data.name == "npy/test");
}

TEST_CASE("npy floats of either width are taken as they are") {
  const std::vector<float> single = {0.5F, -1.25F, 3.0F, 7.0F};
  const std::vector<double> wide = {0.5, -1.25, 3.0, 7.0};
  const std::string labels = Npy("|u1", "(2,)", Bytes<std::uint8_t>({1, 0}));
  const Dataset first = Loaded(Npy("<f4", "(2, 2, 1, 1)", Bytes(single)), labels);
  const Dataset second = Loaded(Npy("<f8", "(2, 2, 1, 1)", Bytes(wide)), labels);
  CHECK(first.images.scalar_type() == torch::kFloat32);
  CHECK(first.images[0][1][0][0].item<float>() == -1.25F);
  CHECK(second.images.equal(first.images));
}

TEST_CASE("npy labels of every integer type are read, wide unsigned ones without a sign") {
  const auto last = [](const std::string& labels) {
    return Loaded(FourImages(), labels).labels[3].item<std::int64_t>();
  };
  CHECK(last(Npy("|i1", "(4,)", Bytes<std::int8_t>({0, 1, 2, 100}))) == 100);
  CHECK(last(Npy("|u1", "(4,)", Bytes<std::uint8_t>({0, 1, 2, 200}))) == 200);
  CHECK(last(Npy("<i2", "(4,)", Bytes<std::int16_t>({0, 1, 2, 30000}))) == 30000);
  CHECK(last(Npy("<u2", "(4,)", Bytes<std::uint16_t>({0, 1, 2, 60000}))) == 60000);
  CHECK(last(Npy("<i4", "(4,)", Bytes<std::int32_t>({0, 1, 2, 70000}))) == 70000);
  CHECK(last(Npy("<u4", "(4,)", Bytes<std::uint32_t>({0, 1, 2, 70000}))) == 70000);
  CHECK(last(Npy("<u8", "(4,)", Bytes<std::uint64_t>({0, 1, 2, 9}))) == 9);
}

TEST_CASE("npy version 2 files are read like version 1") {
  const Dataset data = Loaded(FourImages(), Npy("<i8", "(4,)", Bytes<std::int64_t>({0, 2, 1, 2}), 2));
  CHECK(data.labels.equal(torch::tensor({0, 2, 1, 2}, torch::kInt64)));
}

TEST_CASE("npy training and test pairs share their number of classes") {
  TemporaryFolder folder;
  folder.Write("train.npy", FourImages());
  folder.Write("train-labels.npy", Npy("|u1", "(4,)", Bytes<std::uint8_t>({0, 1, 2, 5})));
  folder.Write("x.npy", FourImages());
  folder.Write("y.npy", FourLabels());
  DataOptions options;
  options.name = "npy";
  options.train_images = "train.npy";
  options.train_labels = "train-labels.npy";
  options.test_images = (folder.path() / "x.npy").string();
  options.test_labels = "y.npy";
  options.calibration = 1;
  const DataSplits splits = LoadData(options, {folder.path()}, 1);
  CHECK(splits.train.size() == 3);
  CHECK(splits.calibration.classes == 6);
  CHECK(splits.test.classes == 6);

  folder.Write("x.npy", Npy("|u1", "(4, 3, 2)", std::string(24, '\0')));
  const Failure failure = FailureOf([&] { (void)LoadData(options, {folder.path()}, 1); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring("[1, 3, 2]") && ContainsSubstring("[1, 2, 3]"));
}

TEST_CASE("npy labels are what the task takes: classes of positions, numbers, zeros and ones") {
  const auto loaded = [](const std::string& task, const std::string& labels) {
    TemporaryFolder folder;
    folder.Write("x.npy", FourImages());
    folder.Write("y.npy", labels);
    DataOptions options;
    options.name = "npy";
    options.train_images = options.test_images = "x.npy";
    options.train_labels = options.test_labels = "y.npy";
    options.calibration = 1;
    options.task = task;
    return LoadData(options, {folder.path()}, 1);
  };
  const auto pixels =
      Npy("<i2", "(4, 2, 3)",
          Bytes<std::int16_t>({0, 1, 2, -100, 1, 0, 0, 1, 2, -100, 1, 0, 0, 1, 2, -100, 1, 0, 0, 1, 2, -100, 1, 0}));
  const DataSplits segmented = loaded("segmentation", pixels);
  CHECK(segmented.test.labels.sizes() == torch::IntArrayRef({4, 2, 3}));
  CHECK(segmented.test.labels.scalar_type() == torch::kInt64);
  CHECK(segmented.test.labels[0][1][0].item<std::int64_t>() == -100);
  CHECK(std::string(segmented.test.Task().name()) == "segmentation");
  CHECK(segmented.train.likelihood == segmented.calibration.likelihood);  // split off, and one noise for all
  CHECK(segmented.train.Head(2).likelihood);
  CHECK(Halves(segmented.train).second.likelihood);
  const DataSplits numbers = loaded("regression", Npy("<f8", "(4, 2)", Bytes<double>({0.5, 1, -2, 3, 4, 5, 6, 7})));
  CHECK(numbers.test.labels.scalar_type() == torch::kFloat);
  CHECK(numbers.test.labels[0][0].item<float>() == 0.5F);
  const DataSplits there = loaded("multi-label", Npy("|b1", "(4, 2)", Bytes<std::uint8_t>({0, 1, 1, 1, 0, 0, 0, 1})));
  CHECK(there.test.labels.sum().item<float>() == 4.0F);
  const auto refused = [&](const std::string& task, const std::string& labels) {
    const Failure failure = FailureOf([&] { (void)loaded(task, labels); });
    CHECK(failure.kind == ErrorKind::kData);
    return failure.message;
  };
  CHECK_THAT(refused("segmentation", FourLabels()), ContainsSubstring("for every position"));
  CHECK_THAT(refused("multi-label", FourLabels()), ContainsSubstring("0 and 1"));
  CHECK_THAT(refused("regression", Npy("<f4", "(4,)", Bytes<float>({0, 1, 2, NAN}))), ContainsSubstring("NaN"));
  DataOptions digits;
  digits.name = "synthetic-digits";
  digits.task = "regression";
  CHECK_THAT(FailureOf([&] { (void)LoadData(digits, {}, 1); }).message, ContainsSubstring("data.name: npy"));
}

TEST_CASE("a file that is no npy file is refused by its magic") {
  CHECK_THAT(FailureWith("PK\3\4 an npz file", FourLabels(), "x.npy").message, ContainsSubstring("wrong magic"));
  CHECK_THAT(FailureWith(FourImages(), "", "y.npy").message, ContainsSubstring("wrong magic"));
}

TEST_CASE("an npy version of the future and a cut-off header are refused") {
  std::string future = FourImages();
  future[6] = 9;
  CHECK_THAT(FailureWith(future, FourLabels(), "x.npy").message, ContainsSubstring("npy version 9"));
  CHECK_THAT(FailureWith(FourImages().substr(0, 30), FourLabels(), "x.npy").message, ContainsSubstring("header"));
  CHECK_THAT(FailureWith(FourImages().substr(0, 9), FourLabels(), "x.npy").message, ContainsSubstring("header"));
}

TEST_CASE("an npy array in Fortran order is the array") {
  // [[0, 1, 2], [3, 4, 5]] by columns.
  const std::string fortran = Npy("<f4", "(2, 3)", Bytes<float>({0, 3, 1, 4, 2, 5}), 1, "True");
  const Dataset data = Loaded(fortran, Npy("|u1", "(2,)", Bytes<std::uint8_t>({1, 0})));
  CHECK(data.images.equal(torch::arange(6, torch::kFloat32).view({2, 3})));
}

TEST_CASE("npy arrays of every number type and byte order are taken, bytes as pixels, long integers as integers") {
  const std::string labels = Npy("|u1", "(2,)", Bytes<std::uint8_t>({1, 0}));
  const auto loaded = [&](const std::string& type, const std::string& bytes) {
    return Loaded(Npy(type, "(2, 2)", bytes), labels).images;
  };
  const torch::Tensor expected = torch::tensor({{1.0F, -2.0F}, {-80.0F, 100.0F}});
  CHECK(loaded("|i1", Bytes<std::int8_t>({1, -2, -80, 100})).equal(expected));
  CHECK(loaded("<i2", Bytes<std::int16_t>({1, -2, -80, 100})).equal(expected));
  CHECK(loaded("<f4", Bytes<float>({1, -2, -80, 100})).equal(expected));
  CHECK(loaded("<f8", Bytes<double>({1, -2, -80, 100})).equal(expected));
  CHECK(loaded("<f2", Bytes<std::uint16_t>({0x3c00, 0xc000, 0xd500, 0x5640})).equal(expected));
  CHECK(loaded(">f4", std::string("\x3f\x80\0\0\xc0\0\0\0\xc2\xa0\0\0\x42\xc8\0\0", 16)).equal(expected));
  CHECK(loaded(">i2", std::string("\0\x01\xff\xfe\xff\xb0\0\x64", 8)).equal(expected));
  CHECK(loaded("<u2", Bytes<std::uint16_t>({1, 2, 3, 60000}))[1][1].item<float>() == 60000.0F);
  CHECK(loaded("<i4", Bytes<std::int32_t>({1, -2, -80, 100})).equal(expected.to(torch::kInt64)));
  CHECK(loaded("<i8", Bytes<std::int64_t>({1, -2, -80, 100})).equal(expected.to(torch::kInt64)));
  CHECK(loaded("<u4", Bytes<std::uint32_t>({1, 2, 3, 4000000000U}))[1][1].item<std::int64_t>() == 4000000000);
  CHECK(loaded("|b1", Bytes<std::uint8_t>({1, 0, 0, 1})).equal(torch::tensor({{1.0F, 0.0F}, {0.0F, 1.0F}})));
  CHECK(loaded("|u1", Bytes<std::uint8_t>({1, 2, 3, 255})).scalar_type() == torch::kUInt8);
}

TEST_CASE("npy arrays keep their dimensions, three get a channel unless the layout is as-is") {
  TemporaryFolder folder;
  folder.Write("y.npy", Npy("|u1", "(2,)", Bytes<std::uint8_t>({1, 0})));
  DataOptions options;
  options.name = "npy";
  options.train_images = options.test_images = "x.npy";
  options.train_labels = options.test_labels = "y.npy";
  options.calibration = 0;
  const auto shape = [&](const std::string& text, std::int64_t size) {
    folder.Write("x.npy", Npy("<f4", text, Bytes(std::vector<float>(static_cast<std::size_t>(size), 1.0F))));
    return LoadData(options, {folder.path()}, 1).test.images.sizes().vec();
  };
  CHECK(shape("(2, 6)", 12) == std::vector<std::int64_t>{2, 6});
  CHECK(shape("(2, 3, 2)", 12) == std::vector<std::int64_t>{2, 1, 3, 2});
  CHECK(shape("(2, 1, 3, 2, 1)", 12) == std::vector<std::int64_t>{2, 1, 3, 2, 1});
  options.layout = "as-is";
  CHECK(shape("(2, 3, 2)", 12) == std::vector<std::int64_t>{2, 3, 2});
}

TEST_CASE("a highest class that only one split has is a class of all") {
  TemporaryFolder folder;
  folder.Write("x.npy", FourImages());
  folder.Write("few.npy", Npy("<i8", "(4,)", Bytes<std::int64_t>({0, 1, 1, 0})));
  folder.Write("all.npy", FourLabels());
  DataOptions options;
  options.name = "npy";
  options.train_images = options.test_images = "x.npy";
  options.train_labels = "few.npy";
  options.test_labels = "all.npy";
  options.calibration = 1;
  const DataSplits splits = LoadData(options, {folder.path()}, 1);
  CHECK(splits.train.classes == 3);
  CHECK(splits.test.classes == 3);
  CHECK_NOTHROW(CheckLabelsWithin(splits.test, 3, "the model"));
  const Failure failure = FailureOf([&] { CheckLabelsWithin(splits.test, 2, "the model"); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK(failure.message ==
        (folder.path() / "all.npy").string() +
            ": image 1 of npy/test has the label 2, but the model has 2 outputs: labels are class numbers 0..1; count "
            "the classes from 0, leave such images out, or take a model with more outputs");
}

TEST_CASE("calibration images come from files of their own, or off the test split") {
  TemporaryFolder folder;
  folder.Write("x.npy", FourImages());
  folder.Write("y.npy", FourLabels());
  std::vector<std::uint8_t> pixels(18, 100);
  pixels[6] = 101;  // three images, each another
  pixels[12] = 102;
  folder.Write("cal.npy", Npy("|u1", "(3, 2, 3)", Bytes(pixels)));
  folder.Write("cal-labels.npy", Npy("<i8", "(3,)", Bytes<std::int64_t>({2, 2, 2})));
  DataOptions options;
  options.name = "npy";
  options.train_images = options.test_images = "x.npy";
  options.train_labels = options.test_labels = "y.npy";
  options.calibration_images = "cal.npy";
  options.calibration_labels = "cal-labels.npy";
  DataSplits splits = LoadData(options, {folder.path()}, 1);
  CHECK(splits.train.size() == 4);
  CHECK(splits.test.size() == 4);
  CHECK(splits.calibration.size() == 3);
  CHECK(splits.calibration.images.ge(100).logical_and(splits.calibration.images.le(102)).all().item<bool>());
  options.calibration = 2;
  CHECK(LoadData(options, {folder.path()}, 1).calibration.size() == 2);

  options.calibration_images = options.calibration_labels = "";
  options.calibration_from = "test";
  options.calibration = 1;
  splits = LoadData(options, {folder.path()}, 1);
  CHECK(splits.train.size() == 4);
  REQUIRE(splits.test.size() == 3);
  CHECK(splits.calibration.origin == "npy/test");
  const torch::Tensor all = torch::cat({splits.test.positions, splits.calibration.positions});
  CHECK(std::get<0>(all.sort()).equal(torch::arange(4)));
  CHECK(splits.test.positions.equal(std::get<0>(splits.test.positions.sort())));
}

TEST_CASE("npy types that images or labels cannot have are refused by name") {
  CHECK_THAT(FailureWith(Npy("<c8", "(4, 2, 3)", std::string(192, '\0')), FourLabels(), "x.npy").message,
             ContainsSubstring("unsupported type '<c8'"));
  CHECK_THAT(FailureWith(FourImages(), Npy("<f4", "(4,)", std::string(16, '\0')), "y.npy").message,
             ContainsSubstring("labels are integers"));
}

TEST_CASE("an npy file with too few or too many elements is refused") {
  const std::string images = FourImages();
  CHECK_THAT(FailureWith(images.substr(0, images.size() - 1), FourLabels(), "x.npy").message,
             ContainsSubstring("23 bytes"));
  CHECK_THAT(FailureWith(images + "x", FourLabels(), "x.npy").message, ContainsSubstring("25 bytes"));
  CHECK_THAT(FailureWith(Npy("|u1", "(99999999999, 99999999999, 99999999999)", "abc"), FourLabels(), "x.npy").message,
             ContainsSubstring("3 bytes"));
}

TEST_CASE("a negative npy label is reported with its position") {
  const std::string labels = Npy("<i4", "(4,)", Bytes<std::int32_t>({0, 1, -3, 1}));
  CHECK_THAT(FailureWith(FourImages(), labels, "y.npy").message,
             ContainsSubstring("label -3 at position 2; labels are class numbers from 0"));
  const std::string huge = Npy("<u8", "(4,)", Bytes<std::uint64_t>({0, ~std::uint64_t{0}, 1, 1}));
  CHECK_THAT(FailureWith(FourImages(), huge, "y.npy").message, ContainsSubstring("at position 1"));
}

TEST_CASE("an empty npy data set is refused") {
  CHECK_THAT(FailureWith(Npy("|u1", "(0, 2, 3)", ""), Npy("<i8", "(0,)", ""), "x.npy").message,
             ContainsSubstring("empty"));
}

TEST_CASE("npy image and label counts that differ are both reported") {
  const std::string labels = Npy("<i8", "(3,)", Bytes<std::int64_t>({0, 2, 1}));
  CHECK_THAT(FailureWith(FourImages(), labels, "x.npy").message,
             ContainsSubstring("4 images") && ContainsSubstring("3 labels"));
}

TEST_CASE("npy arrays of the wrong rank are refused with their shape") {
  CHECK_THAT(FailureWith(Npy("|u1", "(4,)", std::string(4, '\0')), FourLabels(), "x.npy").message,
             ContainsSubstring("[4]"));
  CHECK_THAT(FailureWith(FourImages(), Npy("|u1", "(2, 2)", std::string(4, '\0')), "y.npy").message,
             ContainsSubstring("[2, 2]"));
  CHECK_THAT(FailureWith(FourImages(), Npy("|u1", "()", std::string(1, '\0')), "y.npy").message,
             ContainsSubstring("[]"));
}

TEST_CASE("an npy image with NaN is reported with its number") {
  std::vector<float> pixels(8, 1.0F);
  pixels[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THAT(FailureWith(Npy("<f4", "(4, 2, 1)", Bytes(pixels)), FourLabels(), "x.npy").message,
             ContainsSubstring("image 2 holds NaN"));
}

TEST_CASE("npy files that are missing or not named are reported by their recipe key") {
  TemporaryFolder folder;
  folder.Write("x.npy", FourImages());
  DataOptions options;
  options.name = "npy";
  const auto failure = [&] { return FailureOf([&] { (void)LoadData(options, {folder.path()}, 1); }); };
  CHECK(failure().kind == ErrorKind::kUsage);
  options.train_images = "no-such-file.npy";
  CHECK(failure().kind == ErrorKind::kNotFound);
  CHECK_THAT(failure().message,
             ContainsSubstring("data.train_images: no file no-such-file.npy in " + folder.path().string()));
  options.train_images = "x.npy";
  CHECK(failure().kind == ErrorKind::kUsage);
  CHECK_THAT(failure().message, ContainsSubstring("data.test_images: not given"));
}

TEST_CASE("npy: a split of classes may lack its labels") {
  TemporaryFolder folder;
  folder.Write("x.npy", FourImages());
  folder.Write("y.npy", FourLabels());
  DataOptions options;
  options.name = "npy";
  options.train_images = options.test_images = "x.npy";
  options.test_labels = "y.npy";
  options.calibration = 1;
  const DataSplits splits = LoadData(options, {folder.path()}, 1);
  CHECK(splits.train.unlabelled);
  CHECK(splits.calibration.unlabelled);
  CHECK_FALSE(splits.test.unlabelled);
  CHECK(splits.train.size() == 3);
  CHECK(splits.train.name == "npy/train labelled by the float network");
  CHECK(splits.calibration.name == "npy/calibration labelled by the float network");
  CHECK(FindDatasetSource("npy").files(options, {folder.path()}).train.size() == 1);
  const Failure failure = FailureOf([&] { RequireLabels(splits.train, "training"); });
  CHECK(failure.message == "npy/train has no labels, and training needs them");
  options.task = "regression";
  CHECK_THAT(
      FailureOf([&] { (void)LoadData(options, {folder.path()}, 1); }).message,
      ContainsSubstring("data.train_labels: not given; only classes may be missing, and data.task is regression"));
}
