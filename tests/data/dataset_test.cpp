#include "bitplan/data/dataset.h"

#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

Dataset Numbered(int count) {
  return {"numbered", torch::arange(count, torch::kUInt8).view({count, 1, 1, 1}).repeat({1, 3, 2, 2}),
          torch::arange(count, torch::kInt64) % 10, 10};
}

// CIFAR-10 files in small: 50 training images, image i filled with the value i.
void WriteNumberedCifar(const TemporaryFolder& folder) {
  for (int batch = 0; batch < 5; ++batch) {
    std::string bytes;
    for (int i = 10 * batch; i < 10 * batch + 10; ++i)
      bytes += static_cast<char>(i % 10) + std::string(3072, static_cast<char>(i));
    folder.Write("cifar-10-batches-bin/data_batch_" + std::to_string(batch + 1) + ".bin", bytes);
  }
  folder.Write("cifar-10-batches-bin/test_batch.bin", std::string(3073, '\1'));
}

DataSplits LoadNumbered(const TemporaryFolder& folder, int calibration, std::uint64_t seed) {
  DataOptions options;
  options.name = "cifar10";
  options.calibration = calibration;
  return LoadData(options, {folder.path()}, seed);
}

torch::Tensor Numbers(const Dataset& data) { return data.images.flatten(1).select(1, 0).to(torch::kInt64); }

}  // namespace

TEST_CASE("selected rows keep their images and labels together") {
  const Dataset chosen = Numbered(20).Select(torch::tensor({7, 3, 19}, torch::kInt64));
  CHECK(Numbers(chosen).equal(torch::tensor({7, 3, 19}, torch::kInt64)));
  CHECK(chosen.labels.equal(torch::tensor({7, 3, 9}, torch::kInt64)));
  CHECK(chosen.classes == 10);
}

TEST_CASE("the head of a data set shares its memory, and more than there is cannot be asked for") {
  const Dataset data = Numbered(20);
  CHECK(data.Head(5).size() == 5);
  CHECK(data.Head(5).images.data_ptr() == data.images.data_ptr());
  CHECK(FailureOf([&] { (void)data.Head(21); }).kind == ErrorKind::kUsage);
}

TEST_CASE("training and calibration split the published training images between them") {
  TemporaryFolder folder;
  WriteNumberedCifar(folder);
  const DataSplits splits = LoadNumbered(folder, 15, 1);
  CHECK(splits.train.size() == 35);
  CHECK(splits.calibration.size() == 15);
  CHECK(splits.calibration.name == "cifar10/calibration");
  const torch::Tensor all = torch::cat({Numbers(splits.train), Numbers(splits.calibration)});
  CHECK(std::get<0>(all.sort()).equal(torch::arange(50, torch::kInt64)));
  CHECK((Numbers(splits.calibration) % 10).equal(splits.calibration.labels));
}

TEST_CASE("the calibration images follow from the seed") {
  TemporaryFolder folder;
  WriteNumberedCifar(folder);
  const torch::Tensor first = Numbers(LoadNumbered(folder, 15, 1).calibration);
  CHECK(first.equal(Numbers(LoadNumbered(folder, 15, 1).calibration)));
  CHECK_FALSE(first.equal(Numbers(LoadNumbered(folder, 15, 2).calibration)));
}

TEST_CASE("another calibration seed chooses other calibration images and changes neither noise nor test images") {
  TemporaryFolder folder;
  WriteNumberedCifar(folder);
  DataOptions options;
  options.name = "cifar10";
  options.calibration = 15;
  options.noise = 0.01;
  const auto load = [&](std::uint64_t calibration_seed) {
    return LoadData(options, {folder.path()}, 1, calibration_seed);
  };
  const DataSplits first = load(1), other = load(2);
  CHECK(first.calibration.images.equal(LoadData(options, {folder.path()}, 1).calibration.images));
  CHECK_FALSE(first.calibration.positions.equal(other.calibration.positions));
  CHECK(first.test.images.equal(other.test.images));
  const auto in_order = [](const DataSplits& splits) {
    const auto images = torch::cat({splits.calibration.images, splits.train.images});
    return images.index_select(0, torch::cat({splits.calibration.positions, splits.train.positions}).argsort());
  };
  CHECK(in_order(first).equal(in_order(other)));
}

TEST_CASE("a smaller calibration split is part of a bigger one") {
  TemporaryFolder folder;
  WriteNumberedCifar(folder);
  const torch::Tensor big = Numbers(LoadNumbered(folder, 15, 1).calibration);
  CHECK(big.narrow(0, 0, 6).equal(Numbers(LoadNumbered(folder, 6, 1).calibration)));
}

TEST_CASE("of a split of which the calibration images would be more than half a fifth is taken") {
  TemporaryFolder folder;
  WriteNumberedCifar(folder);
  CHECK(LoadNumbered(folder, 25, 1).calibration.size() == 25);
  for (const int asked : {26, 49, 50, 5000}) {
    const DataSplits splits = LoadNumbered(folder, asked, 1);
    CHECK(splits.calibration.size() == 10);
    CHECK(splits.train.size() == 40);
  }
}

TEST_CASE("an unknown data set lists the known names and the nearest") {
  DataOptions options;
  options.name = "cifar-10";
  const Failure failure = FailureOf([&] { (void)LoadData(options, {"."}, 1); });
  CHECK(failure.kind == ErrorKind::kUsage);
  CHECK_THAT(failure.message, ContainsSubstring("cifar-10") && ContainsSubstring("fashion-mnist") &&
                                  ContainsSubstring("nearest: cifar10"));
}

TEST_CASE("bytes are scaled to 0..1 and normalized per channel") {
  DataOptions options;
  options.normalize_mean = {0.1, 0.2, 0.3};
  options.normalize_std = {0.5, 0.25, 2.0};
  const torch::Tensor out = Normalizer(options).Apply(Numbered(200).images);
  CHECK(out.scalar_type() == torch::kFloat32);
  CHECK(out[153][0][1][1].item<float>() == Approx((0.6 - 0.1) / 0.5));
  CHECK(out[153][1][0][1].item<float>() == Approx((0.6 - 0.2) / 0.25));
  CHECK(out[153][2][1][0].item<float>() == Approx((0.6 - 0.3) / 2.0));
}

TEST_CASE("without mean and deviation bytes become 0..1 and floats stay as they are") {
  const Normalizer normalizer{DataOptions{}};
  CHECK(normalizer.Apply(torch::full({1, 1, 2, 2}, 255, torch::kUInt8)).eq(1.0F).all().item<bool>());
  const torch::Tensor floats = torch::full({1, 1, 2, 2}, 255.0F);
  CHECK(normalizer.Apply(floats).equal(floats));
}

TEST_CASE(
    "noise has its deviation on the normalized image, is drawn once by seed, and is one for all labels of an image") {
  DataOptions options;
  options.normalize_mean = {0.4, 0.5, 0.6};
  options.normalize_std = {0.5, 0.25, 0.125};
  const Dataset clean{"noisy", torch::full({400, 3, 8, 8}, 100, torch::kUInt8), torch::zeros({400}, torch::kInt64), 10};
  Dataset numbered = clean, same = clean, other = clean;
  numbered.images =
      clean.images + (torch::arange(400, torch::kUInt8) / 2).to(torch::kUInt8).view({-1, 1, 1, 1});  // pairs
  same.images = numbered.images;
  AddNoise(numbered, options, 1);
  CHECK(numbered.images.equal(same.images));  // none asked for
  options.noise = 0.05;
  Dataset again = same;
  AddNoise(numbered, options, 1);
  AddNoise(again, options, 1);
  AddNoise(other, options, 2);
  CHECK(numbered.images.equal(again.images));
  const Normalizer normalizer(options);
  const torch::Tensor noise = normalizer.Apply(numbered.images) - normalizer.Apply(same.images);
  for (int c = 0; c < 3; ++c) {
    CHECK(noise.select(1, c).std().item<double>() == Approx(0.05).epsilon(0.05));
    CHECK(std::abs(noise.select(1, c).mean().item<double>()) < 0.002);
  }
  CHECK(noise[0].equal(noise[1]));
  CHECK_FALSE(noise[0].equal(noise[2]));
  CHECK(other.images.slice(0, 1).equal(other.images[0].unsqueeze(0).expand({399, 3, 8, 8})));  // one image, 400 labels
}

TEST_CASE("features and signals are normalized along their second dimension, and integers are left to an embedding") {
  DataOptions options;
  options.normalize_mean = {1.0, 2.0};
  options.normalize_std = {2.0, 4.0};
  const Normalizer normalizer(options);
  CHECK(normalizer.Apply(torch::tensor({{3.0F, 6.0F}})).equal(torch::tensor({{1.0F, 1.0F}})));
  CHECK(normalizer.Apply(torch::full({1, 2, 1}, 6)).equal(torch::tensor({2.5F, 1.0F}).view({1, 2, 1})));
  CHECK_THROWS_WITH(normalizer.Apply(torch::zeros({1, 3})), ContainsSubstring("2 values for images with 3 channels"));
  Normalizer plain{DataOptions{}};
  const torch::Tensor tokens = torch::tensor({{7, 9}}, torch::kInt64);
  CHECK(plain.Apply(tokens).scalar_type() == torch::kFloat32);
  plain.KeepIntegers();
  CHECK(plain.Apply(tokens).equal(tokens));
  Normalizer both(options);
  both.KeepIntegers();
  CHECK_THROWS_WITH(both.Apply(tokens), ContainsSubstring("data.normalize"));
}

TEST_CASE("normalizing leaves the data set as it was") {
  DataOptions options;
  options.normalize_mean = {0.5};
  options.normalize_std = {0.5};
  const torch::Tensor floats = torch::ones({2, 3, 2, 2});
  CHECK(Normalizer(options).Apply(floats).eq(1.0F).all().item<bool>());
  options.normalize_std = {0.25};
  (void)Normalizer(options).Apply(floats);
  CHECK(floats.eq(1.0F).all().item<bool>());
}

TEST_CASE("a mean for another number of channels and a deviation of zero are usage errors") {
  DataOptions options;
  options.normalize_mean = {0.1, 0.2};
  const Failure channels = FailureOf([&] { (void)Normalizer(options).Apply(Numbered(4).images); });
  CHECK(channels.kind == ErrorKind::kUsage);
  CHECK_THAT(channels.message, ContainsSubstring("data.normalize.mean: 2 values") && ContainsSubstring("3 channels"));
  options.normalize_mean = {};
  options.normalize_std = {0.0};
  CHECK(FailureOf([&] { Normalizer{options}; }).kind == ErrorKind::kUsage);
}

TEST_CASE("halves have all rows, and an image that stands several times in a row is in one of them") {
  const Dataset data = Numbered(4).Select(torch::tensor({0, 1, 1, 1, 1, 2, 3}, torch::kInt64));
  const auto [first, rest] = Halves(data);
  CHECK(Numbers(first).equal(torch::tensor({0, 1, 1, 1, 1}, torch::kInt64)));
  CHECK(Numbers(rest).equal(torch::tensor({2, 3}, torch::kInt64)));
  CHECK(rest.labels.equal(torch::tensor({2, 3}, torch::kInt64)));
  CHECK(Halves(Numbered(10)).first.size() == 5);
}
