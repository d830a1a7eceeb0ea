#include "bitplan/data/augment.h"

#include <set>

#include "data/data_files.h"
#include "support/catch_torch.h"

using namespace bitplan;
using namespace bitplan::testing;

namespace {

torch::Tensor Patterned(int count, torch::ScalarType type = torch::kUInt8) {
  return (torch::arange(count * 2 * 11 * 13, torch::kInt64) % 251 + 1).to(type).view({count, 2, 11, 13});
}

torch::Tensor Augmented(const char* name, const torch::Tensor& images, std::uint64_t seed = 1) {
  RandomStream stream(seed, "test");
  return FindAugmentation(name).apply(images, stream);
}

// `image` [C, H, W] moved by whole pixels, zeros moving in; written the slow way.
torch::Tensor Moved(const torch::Tensor& image, int down, int right) {
  torch::Tensor out = torch::zeros_like(image);
  for (int y = 0; y < image.size(1); ++y) {
    for (int x = 0; x < image.size(2); ++x) {
      const int from_y = y - down, from_x = x - right;
      if (from_y < 0 || from_y >= image.size(1) || from_x < 0 || from_x >= image.size(2)) continue;
      out.select(1, y).select(1, x).copy_(image.select(1, from_y).select(1, from_x));
    }
  }
  return out;
}

// All moves seen in the augmented images; fails for an image that is no move of its original within `reach`.
std::set<std::pair<int, int>> MovesSeen(const char* name, const torch::Tensor& images, int reach) {
  const torch::Tensor out = Augmented(name, images);
  std::set<std::pair<int, int>> seen;
  for (int n = 0; n < images.size(0); ++n) {
    bool found = false;
    for (int down = -reach; down <= reach && !found; ++down) {
      for (int right = -reach; right <= reach && !found; ++right) {
        found = out[n].equal(Moved(images[n], down, right));
        if (found) seen.emplace(down, right);
      }
    }
    CAPTURE(n);
    CHECK(found);
  }
  return seen;
}

}  // namespace

TEST_CASE("every augmentation keeps shape and type, repeats with its stream and leaves its input alone") {
  for (const auto& augmentation : Augmentations()) {
    for (const auto type : {torch::kUInt8, torch::kFloat32}) {
      CAPTURE(augmentation.name);
      const torch::Tensor images = Patterned(40, type);
      const torch::Tensor out = Augmented(augmentation.name, images);
      CHECK(out.sizes() == images.sizes());
      CHECK(out.scalar_type() == type);
      CHECK(out.equal(Augmented(augmentation.name, images)));
      CHECK_FALSE(out.equal(Augmented(augmentation.name, images, 2)));
      CHECK(images.equal(Patterned(40, type)));
    }
  }
}

TEST_CASE("augmenting bytes and floats gives the same pixels") {
  for (const auto& augmentation : Augmentations()) {
    CAPTURE(augmentation.name);
    CHECK(Augmented(augmentation.name, Patterned(40))
              .to(torch::kFloat32)
              .equal(Augmented(augmentation.name, Patterned(40, torch::kFloat32))));
  }
}

TEST_CASE("shift moves whole images by up to two pixels each way and uses all 25 moves") {
  CHECK(MovesSeen("shift", Patterned(250), 2).size() == 25);
}

TEST_CASE("pad-and-crop moves whole images by up to four pixels each way and reaches the corners") {
  const auto moves = MovesSeen("pad-and-crop", Patterned(400), 4);
  CHECK(moves.size() > 70);
  CHECK(moves.count({4, 4}) == 1);
  CHECK(moves.count({-4, -4}) == 1);
}

TEST_CASE("an image smaller than the padding can move out of sight") {
  CHECK(Augmented("pad-and-crop", torch::ones({100, 1, 2, 2})).sum().item<float>() < 250);
}

TEST_CASE("flip mirrors about half of the images left to right and no other way") {
  const torch::Tensor images = Patterned(400);
  const torch::Tensor out = Augmented("flip", images);
  int mirrored = 0;
  for (int n = 0; n < 400; ++n) {
    const bool flipped = out[n].equal(images[n].flip({2}));
    mirrored += flipped ? 1 : 0;
    CHECK((flipped || out[n].equal(images[n])));
  }
  CHECK(mirrored > 160);
  CHECK(mirrored < 240);
}

TEST_CASE("an empty batch is augmented to an empty batch") {
  for (const auto& augmentation : Augmentations()) {
    CHECK(Augmented(augmentation.name, torch::empty({0, 1, 4, 4}, torch::kUInt8)).numel() == 0);
  }
}

TEST_CASE("an image batch that is not contiguous in memory is augmented like its copy") {
  const torch::Tensor images = Patterned(30).transpose(2, 3);
  for (const auto& augmentation : Augmentations()) {
    CHECK(Augmented(augmentation.name, images).equal(Augmented(augmentation.name, images.contiguous())));
  }
}

TEST_CASE("a blend is the mean of an image and the next, and the last one's next is the first") {
  const torch::Tensor images = torch::tensor({0, 10, 200, 250}, torch::kUInt8).reshape({2, 1, 1, 2});
  const torch::Tensor both = torch::tensor({100.0F, 130.0F}).reshape({1, 1, 2});
  CHECK(Blended(images, 2).equal(torch::stack({both, both})));
  CHECK(Blended(images.to(torch::kFloat32), 1).equal(both.unsqueeze(0)));
  CHECK(Blended(images, 0).size(0) == 0);
  const torch::Tensor three = torch::eye(3).reshape({3, 3, 1, 1});
  CHECK(Blended(three, 3).flatten(1).equal((torch::eye(3) + torch::eye(3).roll(-1, 0)) / 2.0));
}

TEST_CASE("shapes span the range of every channel, every other one inside an outline") {
  RandomStream stream(1, "test"), again(1, "test");
  torch::Tensor images = torch::rand({3, 2, 28, 20});
  images.select(1, 1).mul_(4.0).sub_(2.0);
  const torch::Tensor shapes = Shapes(images, 200, stream);
  REQUIRE(shapes.sizes() == torch::IntArrayRef({200, 2, 28, 20}));
  CHECK(shapes.equal(Shapes(images, 200, again)));
  CHECK_FALSE(shapes[1].equal(shapes[3]));
  for (const int channel : {0, 1}) {
    const torch::Tensor values = shapes.select(1, channel), range = images.select(1, channel);
    const double low = range.min().item<double>(), high = range.max().item<double>();
    CHECK(values.min().item<double>() == Approx(low).margin(1e-5));
    CHECK(values.max().item<double>() == Approx(high).epsilon(0.1));
    CHECK(values.max().item<double>() <= high + 1e-5);
    const torch::Tensor outside = values.le(low + 1e-6).to(torch::kFloat64).mean({1, 2});
    CHECK(outside.slice(0, 0, 200, 2).mean().item<double>() == Approx(0.5).margin(0.1));
    CHECK(outside.slice(0, 1, 200, 2).max().item<double>() < 0.01);
  }
  const torch::Tensor surfaces = shapes.slice(0, 1, 200, 2), across = surfaces.slice(3, 1) - surfaces.slice(3, 0, 19);
  CHECK(across.select(1, 0).abs().max().item<double>() < 1.1 * 6.0 / 19.0);  // between at most 7 knots
  CHECK(Shapes(images, 0, stream).sizes() == torch::IntArrayRef({0, 2, 28, 20}));
  CHECK(Shapes(torch::rand({2, 1, 1, 3}).mul(255).to(torch::kUInt8), 4, stream).sizes() ==
        torch::IntArrayRef({4, 1, 1, 3}));
}

TEST_CASE("rearranged images hold the pixels of the image or of its negative, in other places") {
  RandomStream stream(1, "test"), again(1, "test");
  const torch::Tensor images = torch::rand({300, 2, 12, 12}) * torch::tensor({1.0F, 9.0F}).reshape({2, 1, 1}) - 0.5;
  const torch::Tensor rearranged = Rearranged(images, 200, stream);
  REQUIRE(rearranged.sizes() == torch::IntArrayRef({200, 2, 12, 12}));
  CHECK(rearranged.equal(Rearranged(images, 200, again)));
  const torch::Tensor ends = (images.amin({0, 2, 3}) + images.amax({0, 2, 3})).reshape({2, 1, 1});
  const auto sorted = [](const torch::Tensor& image) { return std::get<0>(image.flatten(1).sort(1)); };
  int negatives = 0, same = 0, whole = 0, transposed = 0;
  for (int i = 0; i < 200; ++i) {
    const bool negative = !torch::allclose(sorted(rearranged[i]), sorted(images[i]));
    const torch::Tensor image = negative ? ends - images[i] : images[i];
    REQUIRE(torch::allclose(sorted(rearranged[i]), sorted(image), 1e-5, 1e-5));
    negatives += negative ? 1 : 0;
    same += torch::allclose(rearranged[i], image, 1e-5, 1e-5) ? 1 : 0;
    const torch::Tensor turned = image.transpose(1, 2);
    for (const torch::Tensor& source : {image, turned}) {
      for (const auto& axes : std::vector<std::vector<std::int64_t>>{{}, {1}, {2}, {1, 2}}) {
        if (!torch::allclose(rearranged[i], source.flip(axes), 1e-5, 1e-5)) continue;
        ++whole;
        transposed += source.is_same(turned) ? 1 : 0;
      }
    }
  }
  CHECK(negatives > 70);
  CHECK(negatives < 130);
  CHECK(whole > 40);  // a third in one block; a few more whose blocks fall back into their order
  CHECK(whole < 120);
  CHECK(transposed > whole / 4);
  CHECK(transposed < whole);
  CHECK(same < 30);
  CHECK(Rearranged(images, 0, stream).sizes() == torch::IntArrayRef({0, 2, 12, 12}));
}

TEST_CASE("rearranged images are made of whole blocks") {
  RandomStream stream(2, "test");
  // Pixels that tell their place, of an image that is not square; its negative is the image from back to front.
  const torch::Tensor places = torch::arange(8 * 20).to(torch::kUInt8).reshape({1, 1, 8, 20}).repeat({60, 1, 1, 1});
  const torch::Tensor rearranged = Rearranged(places, 60, stream).to(torch::kInt64).squeeze(1);
  std::set<int> blocks;
  for (int i = 0; i < 60; ++i) {
    const torch::Tensor rows = rearranged[i].select(1, 0).div(20, "floor"), columns = rearranged[i][0].remainder(20);
    REQUIRE(rearranged[i].equal(rows.unsqueeze(1) * 20 + columns));
    for (const torch::Tensor& order : {rows, columns}) {
      REQUIRE(std::get<0>(order.sort()).equal(torch::arange(order.size(0))));
      const torch::Tensor steps = order.diff();
      const auto forwards = steps.eq(1).sum().item<int>(), backwards = steps.eq(-1).sum().item<int>();
      const int breaks = static_cast<int>(steps.size(0)) - std::max(forwards, backwards);
      CHECK(breaks <= 3);
      blocks.insert(breaks + 1);
    }
  }
  CHECK(blocks == std::set<int>{1, 2, 3, 4});  // of four blocks two may stay side by side
}

TEST_CASE("distorted images keep what they show, about where it was") {
  RandomStream stream(1, "test"), again(1, "test");
  torch::Tensor images = torch::zeros({64, 2, 28, 28});
  images.slice(2, 9, 19).slice(3, 11, 17).fill_(1.0);  // a bar of 60 pixels about the middle
  const torch::Tensor distorted = Distorted(images, stream);
  REQUIRE(distorted.sizes() == images.sizes());
  CHECK(distorted.equal(Distorted(images, again)));
  CHECK_FALSE(distorted[0].equal(distorted[1]));                // every image has a map of its own
  CHECK(distorted.select(1, 0).equal(distorted.select(1, 1)));  // its channels have the same one
  CHECK(distorted.min().item<float>() >= 0.0F);
  CHECK(distorted.max().item<float>() <= 1.0F + 1e-5F);
  const torch::Tensor mass = distorted.select(1, 0).sum({1, 2});
  CHECK(mass.min().item<float>() > 60.0F * 0.86F);  // scaled by up to 7 % along either axis
  CHECK(mass.max().item<float>() < 60.0F / 0.86F);
  const torch::Tensor at = torch::arange(28, torch::kFloat32) - 13.5;
  const auto middle = [&](int dim) { return ((distorted.select(1, 0).sum(dim) * at).sum(1) / mass).abs().max(); };
  for (const int dim : {1, 2}) {
    CHECK(middle(dim).item<float>() < 1.4F);  // moved by up to a pixel
    CHECK(middle(dim).item<float>() > 0.5F);
  }
  const torch::Tensor small = torch::rand({4, 1, 1, 3});
  CHECK(Distorted(small, stream).equal(small));
}

TEST_CASE("an unknown augmentation lists the known ones") {
  const Failure failure = FailureOf([] { (void)FindAugmentation("flop"); });
  CHECK(failure.kind == ErrorKind::kUsage);
  CHECK_THAT(failure.message,
             ContainsSubstring("flop") && ContainsSubstring("shift") && ContainsSubstring("nearest: flip"));
}
