#include <algorithm>
#include <limits>

#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

constexpr const char* kSamples = "ambiguous-mnist/amnist_samples.pt";
constexpr const char* kLabels = "ambiguous-mnist/amnist_labels.pt";

void Save(const TemporaryFolder& folder, const std::string& name, const torch::Tensor& tensor) {
  const std::vector<char> bytes = torch::pickle_save(tensor);
  folder.Write(name, {bytes.data(), bytes.size()});
}

// Image i is filled with (i + 1) / 255 but for its first pixel, 1.
torch::Tensor Images(std::int64_t count) {
  torch::Tensor images = (torch::arange(count, torch::kFloat32) + 1).div(255).view({-1, 1, 1, 1});
  images = images.repeat({1, 1, 28, 28});
  images.select(3, 0).select(2, 0).fill_(1);
  return images;
}

// Labels i, i + 1, i + 2 of image i, modulo 10.
torch::Tensor Labels(std::int64_t count) {
  return (torch::arange(count, torch::kInt64).view({-1, 1}) + torch::arange(3, torch::kInt64)) % 10;
}

void WriteBoth(const TemporaryFolder& folder, std::int64_t count = 6) {
  Save(folder, kSamples, Images(count));
  Save(folder, kLabels, Labels(count));
}

DataSplits LoadAmbiguous(const TemporaryFolder& folder, const std::string& name = "ambiguous-mnist") {
  DataOptions options;
  options.name = name;
  options.calibration = 0;
  return FindDatasetSource(name).load(options, {folder.path()}, 1);
}

std::vector<std::int64_t> Values(const torch::Tensor& tensor) {
  const torch::Tensor wide = tensor.to(torch::kInt64).contiguous();
  return {wide.data_ptr<std::int64_t>(), wide.data_ptr<std::int64_t>() + wide.numel()};
}

torch::Tensor LastPixels(const Dataset& data) { return data.images.select(1, 0).select(1, 27).select(1, 27); }

// Loads after one file was replaced: a data error that names the file.
std::string Complaint(const TemporaryFolder& folder, const std::string& culprit) {
  const Failure failure = FailureOf([&] { (void)LoadAmbiguous(folder); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring((folder.path() / culprit).string() + ": "));
  CHECK(failure.message.find('\n') == std::string::npos);
  return failure.message;
}

std::string ComplaintWith(const std::string& culprit, const torch::Tensor& tensor) {
  const TemporaryFolder folder;
  WriteBoth(folder);
  Save(folder, culprit, tensor);
  return Complaint(folder, culprit);
}

// `count` black images of size side x side and the label 9.
void WriteMnist(const TemporaryFolder& folder, const std::string& split, std::uint32_t count, std::uint32_t side = 28) {
  folder.Write("mnist/" + split + "-images-idx3-ubyte", BigEndian(0x803) + BigEndian(count) + BigEndian(side) +
                                                            BigEndian(side) + std::string(count * side * side, '\0'));
  folder.Write("mnist/" + split + "-labels-idx1-ubyte",
               BigEndian(0x801) + BigEndian(count) + std::string(count, '\x09'));
}

}  // namespace

TEST_CASE("ambiguous-mnist repeats every image in a row, once with each of its labels, and cuts in the middle") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  const DataSplits splits = LoadAmbiguous(folder);
  CHECK(splits.train.name == "ambiguous-mnist/train");
  CHECK(splits.train.classes == 10);
  REQUIRE(splits.train.images.sizes() == at::IntArrayRef({9, 1, 28, 28}));
  CHECK(splits.train.images.scalar_type() == torch::kUInt8);
  CHECK(splits.train.images[0][0][0][0].item<int>() == 255);
  CHECK(Values(LastPixels(splits.train)) == std::vector<std::int64_t>{1, 1, 1, 2, 2, 2, 3, 3, 3});
  CHECK(Values(splits.train.labels) == std::vector<std::int64_t>{0, 1, 2, 1, 2, 3, 2, 3, 4});
  CHECK(Values(LastPixels(splits.test)) == std::vector<std::int64_t>{4, 4, 4, 5, 5, 5, 6, 6, 6});
  CHECK(Values(splits.test.labels) == std::vector<std::int64_t>{3, 4, 5, 4, 5, 6, 5, 6, 7});
}

TEST_CASE("ambiguous-mnist tensors of other widths and orders in memory are read alike") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  const DataSplits plain = LoadAmbiguous(folder);
  Save(folder, kSamples, Images(6).to(torch::kFloat64).set_requires_grad(true));
  Save(folder, kLabels, Labels(6).to(torch::kUInt8).t().contiguous().t());
  const DataSplits other = LoadAmbiguous(folder);
  CHECK(other.test.images.equal(plain.test.images));
  CHECK(other.test.labels.equal(plain.test.labels));
  CHECK_FALSE(other.test.images.requires_grad());
}

TEST_CASE("no ambiguous image is both trained on and in the calibration split") {
  const TemporaryFolder folder;
  WriteBoth(folder, 40);
  DataOptions options;
  options.name = "ambiguous-mnist";
  options.calibration = 20;  // 20 images of 3 labels each: the seventh is taken whole
  const DataSplits splits = LoadData(options, {folder.path()}, 1);
  CHECK(splits.calibration.size() == 21);
  CHECK(splits.train.size() == 39);
  const auto held = Values(LastPixels(splits.calibration)), trained = Values(LastPixels(splits.train));
  for (const std::int64_t image : held) {
    CHECK(std::count(held.begin(), held.end(), image) == 3);
    CHECK(std::count(trained.begin(), trained.end(), image) == 0);
  }
}

TEST_CASE("dirty-mnist is mnist followed by ambiguous-mnist in both splits") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  WriteMnist(folder, "train", 5);
  WriteMnist(folder, "t10k", 2);
  const DataSplits splits = LoadAmbiguous(folder, "dirty-mnist");
  CHECK(splits.train.name == "dirty-mnist/train");
  CHECK(splits.test.classes == 10);
  CHECK(Values(splits.train.labels) == std::vector<std::int64_t>{9, 9, 9, 9, 9, 0, 1, 2, 1, 2, 3, 2, 3, 4});
  CHECK(Values(LastPixels(splits.test)) == std::vector<std::int64_t>{0, 0, 4, 4, 4, 5, 5, 5, 6, 6, 6});
  DataOptions options;
  options.name = "dirty-mnist";
  const DataFiles files = FindDatasetSource("dirty-mnist").files(options, {folder.path()});
  CHECK(files.train.size() == 4);
  CHECK(files.test.size() == 4);
  options.calibration = 4;
  CHECK(LoadData(options, {folder.path()}, 1).train.size() == 8);  // two whole images of three labels are held back
}

TEST_CASE("dirty-mnist refuses mnist files of another size") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  WriteMnist(folder, "train", 5, 8);
  WriteMnist(folder, "t10k", 2, 8);
  const Failure failure = FailureOf([&] { (void)LoadAmbiguous(folder, "dirty-mnist"); });
  CHECK(failure.kind == ErrorKind::kData);
  CHECK_THAT(failure.message, ContainsSubstring("8x8") && ContainsSubstring("28x28"));
}

TEST_CASE("missing ambiguous-mnist files name the command that makes them") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  WriteMnist(folder, "train", 5);
  std::filesystem::remove(folder.path() / kLabels);
  const std::string remedy = "run bitplan make-data ambiguous-mnist --data " + folder.path().string();
  const Failure failure = FailureOf([&] { (void)LoadAmbiguous(folder); });
  CHECK(failure.kind == ErrorKind::kNotFound);
  CHECK_THAT(failure.message, ContainsSubstring(kLabels) && ContainsSubstring(remedy));
  const Failure mnist = FailureOf([&] { (void)LoadAmbiguous(folder, "dirty-mnist"); });
  CHECK(mnist.kind == ErrorKind::kNotFound);
  CHECK_THAT(mnist.message, ContainsSubstring("t10k-images") && ContainsSubstring("fetch-data"));
  WriteMnist(folder, "t10k", 2);
  CHECK_THAT(FailureOf([&] { (void)LoadAmbiguous(folder, "dirty-mnist"); }).message,
             ContainsSubstring(kLabels) && ContainsSubstring(remedy));
}

TEST_CASE("files that torch.save did not write, and cut-off ones, are refused") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  folder.Write(kLabels, "labels, but as text");
  CHECK_THAT(Complaint(folder, kLabels), ContainsSubstring("written by torch.save"));
  folder.Write(kLabels, "");
  (void)Complaint(folder, kLabels);
  const std::vector<char> bytes = torch::pickle_save(Images(6));
  WriteBoth(folder);
  folder.Write(kSamples, {bytes.data(), bytes.size() - 100});
  CHECK_THAT(Complaint(folder, kSamples), ContainsSubstring("damaged"));
  const std::vector<char> list = torch::pickle_save(c10::IValue(std::vector<double>{0.5, 0.25}));
  folder.Write(kSamples, {list.data(), list.size()});
  CHECK_THAT(Complaint(folder, kSamples), ContainsSubstring("no plain tensor"));
}

TEST_CASE("a labels file with a damaged byte is read or refused, and nothing else happens") {
  const TemporaryFolder folder;
  WriteBoth(folder);
  const std::vector<char> bytes = torch::pickle_save(Labels(6));
  for (std::size_t at = 0; at < bytes.size(); at += 5) {  // every byte was tried once; a fifth is quick
    CAPTURE(at);
    std::string damaged(bytes.data(), bytes.size());
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << at % 8));
    folder.Write(kLabels, damaged);
    const Failure failure = FailureOf([&] { (void)LoadAmbiguous(folder); });
    if (failure.thrown) CHECK(failure.kind == ErrorKind::kData);
  }
}

TEST_CASE("a tensor that states more elements than its file holds is refused") {
  CHECK_THAT(ComplaintWith(kSamples, torch::zeros({1, 1, 28, 28}).expand({1000, 1, 28, 28})),
             ContainsSubstring("does not fit"));
}

TEST_CASE("ambiguous-mnist tensors of the wrong type or shape are refused with both") {
  CHECK_THAT(ComplaintWith(kSamples, torch::zeros({6, 28, 28})), ContainsSubstring("[6, 28, 28]"));
  CHECK_THAT(ComplaintWith(kSamples, torch::zeros({6, 1, 28, 28}, torch::kUInt8)), ContainsSubstring("Byte"));
  CHECK_THAT(ComplaintWith(kSamples, torch::zeros({0, 1, 28, 28})), ContainsSubstring("empty"));
  CHECK_THAT(ComplaintWith(kLabels, torch::zeros({6}, torch::kInt64)), ContainsSubstring("[6]"));
  CHECK_THAT(ComplaintWith(kLabels, torch::zeros({6, 3})), ContainsSubstring("Float"));
  CHECK_THAT(ComplaintWith(kSamples, Images(7)), ContainsSubstring("7 images") && ContainsSubstring("labels for 6"));
}

TEST_CASE("one ambiguous image cannot be cut into a training and a test split") {
  const TemporaryFolder folder;
  WriteBoth(folder, 1);
  CHECK_THAT(Complaint(folder, kSamples), ContainsSubstring("one image"));
}

TEST_CASE("ambiguous-mnist labels out of range are reported with image and position") {
  torch::Tensor labels = Labels(6);
  labels[4][2].fill_(10);
  CHECK_THAT(ComplaintWith(kLabels, labels), ContainsSubstring("label 10 of image 4 at position 2"));
  labels[4][2].fill_(-1);
  CHECK_THAT(ComplaintWith(kLabels, labels), ContainsSubstring("label -1 of image 4"));
}

TEST_CASE("ambiguous-mnist pixels that are NaN or outside 0..1 are reported with their image") {
  using Limits = std::numeric_limits<float>;
  for (const float wrong : {Limits::quiet_NaN(), Limits::infinity(), 255.0F, -0.5F}) {
    CAPTURE(wrong);
    torch::Tensor images = Images(6);
    images[3][0][5][5].fill_(wrong);
    CHECK_THAT(ComplaintWith(kSamples, images), ContainsSubstring("image 3"));
  }
}
