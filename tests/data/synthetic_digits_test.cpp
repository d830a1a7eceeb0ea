#include "bitplan/data/dataset.h"
#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

DataSplits Load(std::uint64_t seed = 1) {
  DataOptions options;
  options.name = "synthetic-digits";
  options.calibration = 2000;
  return LoadData(options, {}, seed);
}

const DataSplits& LoadedDigits() {
  static const DataSplits splits = Load();
  return splits;
}

// Share of test images whose class has the nearest mean training image.
double NearestMeanAccuracy(const DataSplits& splits) {
  std::vector<torch::Tensor> means;
  const torch::Tensor train = splits.train.images.flatten(1).to(torch::kFloat32);
  for (int digit = 0; digit < splits.train.classes; ++digit) {
    means.push_back(train.index_select(0, splits.train.labels.eq(digit).nonzero().flatten()).mean(0));
  }
  const torch::Tensor test = splits.test.images.flatten(1).to(torch::kFloat32);
  return torch::cdist(test, torch::stack(means))
      .argmin(1)
      .eq(splits.test.labels)
      .to(torch::kFloat64)
      .mean()
      .item<double>();
}

}  // namespace

TEST_CASE("synthetic digits need no files and every digit is there equally often") {
  const DataSplits& splits = LoadedDigits();
  CHECK(splits.train.images.sizes() == at::IntArrayRef({18000, 1, 28, 28}));
  CHECK(splits.calibration.size() == 2000);
  CHECK(splits.test.images.sizes() == at::IntArrayRef({4000, 1, 28, 28}));
  CHECK(splits.test.images.scalar_type() == torch::kUInt8);
  CHECK(splits.test.labels.bincount().eq(400).all().item<bool>());
  CHECK((splits.train.labels.bincount() + splits.calibration.labels.bincount()).eq(2000).all().item<bool>());
}

TEST_CASE("synthetic digits are the same for every run and number of threads") {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const DataSplits other = Load(2);
  at::set_num_threads(threads);
  CHECK(other.test.images.equal(LoadedDigits().test.images));
  CHECK_FALSE(other.calibration.images.equal(LoadedDigits().calibration.images));
  const auto sum = [](const DataSplits& s) {
    return s.train.images.sum().item<std::int64_t>() + s.calibration.images.sum().item<std::int64_t>();
  };
  CHECK(sum(other) == sum(LoadedDigits()));
}

TEST_CASE("no two synthetic digits are alike") {
  const DataSplits& splits = LoadedDigits();
  const torch::Tensor all =
      torch::cat({splits.train.images, splits.calibration.images, splits.test.images}).flatten(1).contiguous();
  std::vector<std::string> images;
  for (std::int64_t i = 0; i < all.size(0); ++i) {
    images.emplace_back(reinterpret_cast<const char*>(all.data_ptr<std::uint8_t>()) + i * 784, 784);
  }
  std::sort(images.begin(), images.end());
  CHECK(std::adjacent_find(images.begin(), images.end()) == images.end());
}

TEST_CASE("synthetic digits are neither noise nor so much alike that their mean images tell them apart") {
  const double accuracy = NearestMeanAccuracy(LoadedDigits());
  CAPTURE(accuracy);
  CHECK(accuracy > 0.5);
  CHECK(accuracy < 0.9);
}

TEST_CASE("synthetic letters need no files, are the same for every run, and their shapes differ") {
  DataOptions options;
  options.name = "synthetic-letters";
  options.calibration = 1200;
  const DataSplits letters = LoadData(options, {}, 1);
  CHECK(letters.test.images.sizes() == at::IntArrayRef({9600, 1, 28, 28}));
  CHECK(letters.test.classes == 24);
  CHECK(letters.test.labels.bincount().eq(400).all().item<bool>());
  CHECK(LoadData(options, {}, 2).test.images.equal(letters.test.images));
  const double accuracy = NearestMeanAccuracy(letters);
  CAPTURE(accuracy);
  CHECK(accuracy > 0.35);  // chance: 0.04
  CHECK(accuracy < 0.85);
  // Every letter has styles of its own: no two mean images are alike.
  const torch::Tensor images = letters.train.images.flatten(1).to(torch::kFloat32);
  std::vector<torch::Tensor> means;
  for (int letter = 0; letter < 24; ++letter) {
    means.push_back(images.index_select(0, letters.train.labels.eq(letter).nonzero().flatten()).mean(0));
  }
  const torch::Tensor apart = torch::cdist(torch::stack(means), torch::stack(means)) + 1e6 * torch::eye(24);
  CHECK(apart.min().item<double>() > 200.0);  // of 255 * 28
}
