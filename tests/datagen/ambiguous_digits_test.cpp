#include "bitplan/datagen/ambiguous_digits.h"

#include <torch/types.h>

#include <cmath>
#include <numeric>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "support/catch_torch.h"

namespace bitplan {
namespace {

constexpr int kClasses = 4;

// Class k: a bright horizontal bar at height 4 + 6 k, a little moved, in faint noise.
Dataset Bars(const std::string& split, std::int64_t count) {
  RandomStream stream(3, "test/bars/" + split);
  Dataset data{"bars/" + split, torch::zeros({count, 1, 28, 28}, torch::kUInt8), torch::empty({count}, torch::kInt64),
               kClasses};
  auto* pixel = data.images.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    const auto label = static_cast<std::int64_t>(stream.Index(kClasses));
    data.labels[i].fill_(label);
    const auto top = 3 + 6 * label + static_cast<std::int64_t>(stream.Index(3));
    for (std::int64_t y = 0; y < 28; ++y) {
      for (std::int64_t x = 0; x < 28; ++x) {
        const bool bright = y >= top && y < top + 3 && x >= 4 && x < 24;
        *pixel++ = static_cast<std::uint8_t>(stream.Index(20) + (bright ? 200 : 0));
      }
    }
  }
  return data;
}

const Dataset& Train() {
  static const Dataset data = Bars("train", 600);
  return data;
}

const Dataset& Test() {
  static const Dataset data = Bars("test", 200);
  return data;
}

AmbiguousDigitsOptions Tiny() {
  AmbiguousDigitsOptions options;
  options.train_images = 60;
  options.test_images = 40;
  options.labels = 20;
  options.hidden = {32};
  options.code = 4;
  options.autoencoder_epochs = 6;
  options.autoencoder_batch = 50;
  options.autoencoder_learning_rate = 0.003;
  options.architecture = "lenet-300-100";
  options.networks = 2;
  options.training.epochs = 3;
  options.training.batch = 50;
  options.group = 16;
  options.pool = 3.0;
  options.most_candidates = 100'000;
  return options;
}

AmbiguousDigits Make(const AmbiguousDigitsOptions& options, std::uint64_t seed = 1, const Dataset& test = Test()) {
  return MakeAmbiguousDigits(Train(), test, options, seed, SilentSink());
}

const AmbiguousDigits& Made() {
  static const AmbiguousDigits made = Make(Tiny());
  return made;
}

bool Same(const AmbiguousHalf& a, const AmbiguousHalf& b) {
  return a.images.equal(b.images) && a.labels.equal(b.labels) && a.predictive.equal(b.predictive);
}

std::int64_t Sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

}  // namespace

TEST_CASE("quotas have exactly the total and never more than a bin holds") {
  RandomStream stream(5, "test/quotas");
  for (int round = 0; round < 200; ++round) {
    std::vector<std::int64_t> counts;
    for (std::uint64_t b = 0; b < 1 + stream.Index(60); ++b) {
      counts.push_back(stream.Uniform() < 0.2 ? 0 : static_cast<std::int64_t>(stream.Index(2000)));
    }
    const auto total = static_cast<std::int64_t>(stream.Index(static_cast<std::uint64_t>(Sum(counts)) + 1));
    const double exponent = round % 4 == 0 ? 0.0 : stream.Uniform(0, 1.5);
    const auto quotas = BinQuotas(counts, total, exponent);
    CAPTURE(round, total, exponent);
    CHECK(Sum(quotas) == total);
    for (std::size_t b = 0; b < counts.size(); ++b) CHECK((quotas[b] >= 0 && quotas[b] <= counts[b]));
  }
}

TEST_CASE("quotas are in proportion to the power of the counts, and full bins leave the rest to the others") {
  using Counts = std::vector<std::int64_t>;
  CHECK(BinQuotas({32, 1024, 32768}, 14, 0.2) == Counts{2, 4, 8});
  CHECK(BinQuotas({100, 300}, 40, 1.0) == Counts{10, 30});
  CHECK(BinQuotas({100, 1000, 0, 1000}, 30, 0.0) == Counts{10, 10, 0, 10});
  // Equal shares of 30 would be ten each: the first bin holds two, the others share 28.
  CHECK(BinQuotas({2, 1000, 1000}, 30, 0.0) == Counts{2, 14, 14});
  CHECK(BinQuotas({2, 5, 1000}, 30, 0.0) == Counts{2, 5, 23});
  CHECK(BinQuotas({7, 8, 9}, 24, 0.2) == Counts{7, 8, 9});
  CHECK(BinQuotas({50, 50, 50}, 100, 0.2) == Counts{34, 33, 33});
  CHECK(BinQuotas({5, 5}, 0, 0.2) == Counts{0, 0});
  CHECK_THROWS_AS(BinQuotas({5, 5}, 11, 0.2), Error);
}

TEST_CASE("ambiguous digits have the shapes asked for and obey the filters") {
  const AmbiguousDigitsOptions options = Tiny();
  for (const bool train : {true, false}) {
    const AmbiguousHalf& half = train ? Made().train : Made().test;
    const std::int64_t count = train ? 60 : 40;
    REQUIRE(half.images.sizes() == at::IntArrayRef({count, 1, 28, 28}));
    CHECK(half.images.scalar_type() == torch::kUInt8);
    REQUIRE(half.labels.sizes() == at::IntArrayRef({count, 20}));
    CHECK(half.kept >= 3 * count);
    CHECK(half.kept < half.drawn);
    CHECK(half.information.le(options.most_information).all().item<bool>());
    CHECK(half.entropy.ge(options.lowest_entropy).all().item<bool>());
    const torch::Tensor p = half.predictive.to(torch::kFloat64);
    CHECK(torch::allclose(half.entropy, -torch::xlogy(p, p).sum(1), 1e-4, 1e-5));
    CHECK(torch::allclose(p.sum(1), torch::ones({count}, torch::kFloat64), 1e-5));
  }
  CHECK(std::isfinite(Made().autoencoder_loss));
  CHECK(Made().network_loss.size() == 2);
}

TEST_CASE("a tighter bound on the mutual information keeps fewer candidates") {
  AmbiguousDigitsOptions options = Tiny();
  const auto share = [](const AmbiguousDigits& made) {
    return static_cast<double>(made.train.kept) / static_cast<double>(made.train.drawn);
  };
  options.most_information = 0.005;
  const AmbiguousDigits strict = Make(options);
  CHECK(strict.train.information.max().item<double>() <= 0.005);
  CHECK(Made().train.information.max().item<double>() > 0.005);
  CHECK(share(strict) < share(Made()));
}

TEST_CASE("labels are draws from the mean prediction") {
  const AmbiguousHalf& half = Made().train;
  const torch::Tensor frequency = torch::one_hot(half.labels, 10).to(torch::kFloat64).mean(1);
  const torch::Tensor p = half.predictive.to(torch::kFloat64);
  // Over all images and labels a class is drawn as often as it was predicted, within four standard deviations.
  const auto draws = static_cast<double>(half.labels.size(1));
  const torch::Tensor deviation = (p * (1 - p)).sum(0).div(draws).sqrt();
  CHECK(((frequency - p).sum(0).abs() <= 4 * deviation + 1e-9).all().item<bool>());
  CHECK(frequency.index({p < 1e-6}).sum().item<double>() == 0.0);
  CHECK((half.labels != half.labels.narrow(1, 0, 1)).any().item<bool>());
}

TEST_CASE("the same seed gives the same ambiguous digits, another seed others") {
  const AmbiguousDigits again = Make(Tiny());
  CHECK(Same(again.train, Made().train));
  CHECK(Same(again.test, Made().test));
  CHECK_FALSE(Make(Tiny(), 2).train.images.equal(Made().train.images));
}

TEST_CASE("the test half is mixed from test images and nothing of them reaches the training half") {
  Dataset alike = Test();  // one image under four labels: whatever is mixed of it decodes to one picture
  alike.images = Test().images.narrow(0, 0, 1).expand({200, 1, 28, 28}).contiguous();
  alike.labels = torch::arange(200, torch::kInt64) % kClasses;
  AmbiguousDigitsOptions options = Tiny();
  options.lowest_entropy = -1.0;
  options.most_information = 10.0;
  const AmbiguousDigits ours = Make(options), theirs = Make(options, 1, alike);
  CHECK(Same(ours.train, theirs.train));
  const auto spread = [](const AmbiguousHalf& half) {
    return half.images.to(torch::kFloat32).std(0, /*unbiased=*/false).max().item<float>();
  };
  CHECK(spread(theirs.test) <= 1.0F);
  CHECK(spread(ours.test) > 20.0F);
}

TEST_CASE("images stand in no order of their entropy") {
  const torch::Tensor entropy = Made().train.entropy;
  const torch::Tensor place = torch::arange(entropy.size(0), torch::kFloat64);
  const double correlation = torch::corrcoef(torch::stack({entropy, place}))[0][1].item<double>();
  CHECK(std::abs(correlation) < 0.5);
}

TEST_CASE("ambiguous digits that cannot be made are refused with the reason") {
  AmbiguousDigitsOptions options = Tiny();
  options.autoencoder_epochs = 0;
  options.training.epochs = 0;
  options.most_information = -1.0;
  options.most_candidates = 5000;
  CHECK_THROWS_WITH(Make(options), ContainsSubstring("only 0 of") && ContainsSubstring("60 images are wanted"));
  options = Tiny();
  options.networks = 1;
  CHECK_THROWS_WITH(Make(options), ContainsSubstring("networks is 1"));
  options = Tiny();
  options.most_parents = 5;
  CHECK_THROWS_WITH(Make(options), ContainsSubstring("4 classes") && ContainsSubstring("need 5"));
  options = Tiny();
  options.architecture = "lenet6";
  CHECK_THROWS_WITH(Make(options), ContainsSubstring("unknown architecture"));
}

TEST_CASE("making ambiguous digits stops when asked to") {
  RequestInterrupt();
  CHECK_THROWS_AS(Make(Tiny()), Error);
  ClearInterrupt();
}

}  // namespace bitplan
