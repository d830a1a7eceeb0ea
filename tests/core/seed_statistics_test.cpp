// Intervals over calibration seeds and images.
#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

using Table = std::vector<std::vector<std::uint8_t>>;  // [seeds][samples]

SeedOutcomes Of(const Table& table) {
  SeedOutcomes outcomes;
  for (const auto& row : table) outcomes.push_back(&row);
  return outcomes;
}

// Two classifiers drawn at random: images of different difficulty, the second one's skill shifted anew by every seed
// with standard deviation `shift`. The expected difference over all seeds and images is known.
struct Experiment {
  Table first, second;

  Experiment(RandomStream& stream, std::size_t seeds, std::size_t samples, double shift)
      : first(seeds, std::vector<std::uint8_t>(samples)), second(first) {
    std::vector<double> images(samples);
    for (double& image : images) image = stream.Normal();
    for (std::size_t s = 0; s < seeds; ++s) {
      const double skill = kSecond + shift * stream.Normal();
      for (std::size_t i = 0; i < samples; ++i) {
        first[s][i] = images[i] + kFirst > 0.0 ? 1 : 0;
        second[s][i] = kShared * images[i] + skill + kNoise * stream.Normal() > 0.0 ? 1 : 0;
      }
    }
  }
  static double Expected(double shift) {
    const auto below = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
    return below(kFirst) - below(kSecond / std::sqrt(kShared * kShared + shift * shift + kNoise * kNoise));
  }
  static constexpr double kFirst = 1.2, kSecond = 1.0, kShared = 0.8, kNoise = 0.5;
};

bool Covers(const SeedMean& interval, double value) { return interval.ci_low <= value && value <= interval.ci_high; }

}  // namespace

TEST_CASE("the two-sided p of Student's t is that of the tables, and fits the quantile at any degrees") {
  CHECK(StudentTwoSided(0.0, 4.0) == Approx(1.0));
  CHECK(StudentTwoSided(1.0, 1.0) == Approx(0.5));
  CHECK(StudentTwoSided(-12.70620, 1.0) == Approx(0.05).epsilon(1e-5));
  CHECK(StudentTwoSided(4.60409, 4.0) == Approx(0.01).epsilon(1e-4));
  CHECK(StudentTwoSided(8.61030, 4.0) == Approx(0.001).epsilon(1e-4));
  for (const double degrees : {1.0, 2.5, 4.0, 7.3, 29.9, 30.1, 400.0, 2e4, 2e6, 1e9}) {
    INFO(degrees);
    CHECK(StudentTwoSided(StudentQuantile975(degrees), degrees) == Approx(0.05).epsilon(1e-4));
  }
}

TEST_CASE("the interval over seeds and images has the variance of two crossed factors") {
  // Differences, three seeds and four images: 1 1 0 0 / 1 0 0 0 / 1 0 0 -1.
  const Table a = {{1, 1, 1, 0}, {1, 0, 1, 0}, {1, 0, 0, 0}}, b = {{0, 0, 1, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
  const auto crossed = CompareOverSeeds(Of(a), Of(b), SeedSamples::kShared);
  // Means of seeds 1/2, 1/4, 0; of images 1, 1/3, 0, -1/3. Sums of squares 1/2, 35/12 - ..., in twelfths by hand.
  const double seeds = 4.0 * (2.0 / 16.0) / 2.0, samples = 3.0 * (1.0 + 1.0 / 9.0 + 1.0 / 9.0 - 4.0 / 16.0) / 3.0;
  const double all = 5.0 - 12.0 / 16.0, rest = (all - 2.0 * seeds - 3.0 * samples) / 6.0;
  REQUIRE(samples > rest);
  const double variance = seeds + samples - rest, degrees = 2.0 * variance * variance / (seeds * seeds);
  const double half = StudentQuantile975(degrees) * std::sqrt(variance / 12.0);
  CHECK(crossed.mean == Approx(0.25));
  CHECK(crossed.spread == Approx(0.25));
  CHECK(crossed.ci_low == Approx(0.25 - half));
  CHECK(crossed.ci_high == Approx(0.25 + half));
  CHECK(crossed.p == Approx(StudentTwoSided(0.25 / std::sqrt(variance / 12.0), degrees)));
  // Images of their own: three independent means.
  const auto own = CompareOverSeeds(Of(a), Of(b), SeedSamples::kOwn);
  const double within = (1.0 / 3.0 + 1.0 / 4.0 + 2.0 / 3.0) / 4.0 / 3.0;  // of a mean: sample variances over four
  const double own_variance = std::max(0.25 * 0.25, within) / 3.0, share = 0.25 * 0.25 / 3.0 / own_variance;
  CHECK(own.ci_high == Approx(0.25 + StudentQuantile975(2.0 / (share * share)) * std::sqrt(own_variance)));
}

TEST_CASE("seeds that all agree leave the interval over images, and equal classifiers none") {
  RandomStream stream(3, "test/agree");
  const Experiment one(stream, 1, 400, 0.0);
  const Table a(5, one.first[0]), b(5, one.second[0]);
  const auto over = CompareOverSeeds(Of(a), Of(b), SeedSamples::kShared);
  const std::vector<float> x(one.first[0].begin(), one.first[0].end()), y(one.second[0].begin(), one.second[0].end());
  const auto images = PairedMean(x, y);
  CHECK(over.mean == Approx(images.mean));
  CHECK(over.ci_low == Approx(images.ci_low).margin(0.0005));
  CHECK(over.ci_high == Approx(images.ci_high).margin(0.0005));
  CHECK(over.spread == Approx(0.0).margin(1e-12));
  const auto equal = CompareOverSeeds(Of(a), Of(a), SeedSamples::kShared);
  CHECK((equal.ci_low == 0.0 && equal.ci_high == 0.0 && equal.p == 1.0));
}

TEST_CASE("seeds that lose as many images, but others, are not sure of their mean") {
  // Each of two seeds loses one image of 1,000, another one: their means agree by chance.
  Table a(2, std::vector<std::uint8_t>(1000, 1)), b = a;
  b[0][3] = b[1][700] = 0;
  for (const auto samples : {SeedSamples::kShared, SeedSamples::kOwn}) {
    const auto over = CompareOverSeeds(Of(a), Of(b), samples);
    CHECK(over.mean == Approx(0.001));
    CHECK(over.ci_low < 0.0);
    CHECK(over.ci_high > 0.002);
    CHECK(over.p > 0.05);
  }
}

TEST_CASE("seeds with samples of their own may have different numbers of them") {
  const Table a = {{1, 1, 0, 1}, {1, 1, 1, 1, 0}}, b = {{0, 1, 0, 0}, {1, 0, 1, 0, 1}};
  const auto over = CompareOverSeeds(Of(a), Of(b), SeedSamples::kOwn);
  CHECK(over.mean == Approx(0.5 * (2.0 / 4.0 + 1.0 / 5.0)));
  CHECK_THROWS_AS(CompareOverSeeds(Of(a), Of(b), SeedSamples::kShared), Error);
}

TEST_CASE("with five seeds the interval covers as often as it says, whether seeds matter or not") {
  constexpr int kRepeats = 500;
  for (const double shift : {0.0, 0.03, 0.15}) {
    RandomStream stream(7, "test/coverage");
    int covered = 0, of_images = 0, of_seeds = 0;
    for (int r = 0; r < kRepeats; ++r) {
      const Experiment drawn(stream, 5, 300, shift);
      const double expected = Experiment::Expected(shift);
      covered += Covers(CompareOverSeeds(Of(drawn.first), Of(drawn.second), SeedSamples::kShared), expected);
      of_seeds += Covers(CompareOverSeeds(Of(drawn.first), Of(drawn.second), SeedSamples::kOwn), expected);
      const std::vector<float> x(drawn.first[0].begin(), drawn.first[0].end());
      const std::vector<float> y(drawn.second[0].begin(), drawn.second[0].end());
      const auto images = PairedMean(x, y);
      of_images += images.ci_low <= expected && expected <= images.ci_high;
    }
    INFO(shift << ": " << covered << ", images " << of_images << ", seeds " << of_seeds);
    CHECK(covered >= 0.93 * kRepeats);
    CHECK(covered <= 0.985 * kRepeats);
    // What it is there for: either variance alone is too little.
    if (shift == 0.15) CHECK(of_images < 0.85 * kRepeats);
    if (shift == 0.03) CHECK(of_seeds < 0.91 * kRepeats);
  }
}

TEST_CASE("means over seeds of losses are those of outcomes, and what cannot be compared is refused") {
  const Table a = {{1, 1, 1, 0}, {1, 0, 1, 0}}, b = {{0, 0, 1, 0}, {0, 0, 1, 1}};
  std::vector<std::vector<float>> x, y;
  for (std::size_t s = 0; s < 2; ++s) {
    x.emplace_back(a[s].begin(), a[s].end());
    y.emplace_back(b[s].begin(), b[s].end());
  }
  const SeedLosses of_x = {&x[0], &x[1]}, of_y = {&y[0], &y[1]};
  const auto outcomes = CompareOverSeeds(Of(a), Of(b), SeedSamples::kShared);
  CHECK(CompareOverSeeds(of_x, of_y, SeedSamples::kShared).ci_low == Approx(outcomes.ci_low));
  CHECK(PairedMean(of_x, of_y, SeedSamples::kShared).ci_high == Approx(outcomes.ci_high));
  const RandomStream stream(1, "test");
  CHECK(ComparePaired(Of(a), Of(b), SeedSamples::kShared, 100, stream).mcnemar_p == Approx(outcomes.p));
  // One seed is a comparison over images.
  const auto one = ComparePaired({&a[0]}, {&b[0]}, SeedSamples::kShared, 100, stream);
  CHECK(one.ci_low == ComparePaired(a[0], b[0], 100, stream).ci_low);
  CHECK_THROWS_AS(CompareOverSeeds({&a[0]}, {&b[0]}, SeedSamples::kShared), Error);
  CHECK_THROWS_AS(CompareOverSeeds(Of(a), {&b[0]}, SeedSamples::kShared), Error);
}

TEST_CASE("a lead that comes and goes with the seed is none, and its choice is paid for") {
  // 1,000 images; the first is 40 ahead with every seed, the second between 100 ahead and 20 behind.
  const auto hits = [](std::size_t count) {
    std::vector<std::uint8_t> correct(1000, 0);
    std::fill(correct.begin(), correct.begin() + static_cast<std::ptrdiff_t>(count), 1);
    return correct;
  };
  const Table rival(5, hits(800)), steady(5, hits(840)),
      fickle = {hits(900), hits(780), hits(880), hits(800), hits(845)};
  const auto sure = CompareFamilies({Of(steady)}, {Of(rival)});
  CHECK(sure.lead == Approx(0.04));
  CHECK(sure.p < 1e-6);
  const auto chance = CompareFamilies({Of(fickle)}, {Of(rival)});
  CHECK(chance.lead == Approx(0.041));
  CHECK(chance.p > 0.05);
  const auto chosen = CompareFamilies({Of(fickle), Of(steady), Of(rival)}, {Of(rival)});
  CHECK(chosen.first == 0U);
  CHECK(chosen.p == Approx(std::min(1.0, 3.0 * chance.p)));
  CHECK_THROWS_AS(CompareFamilies({Of(steady)}, {{&rival[0]}}), Error);
}

TEST_CASE(
    "a share over pairs of seeds counts every statement against every other seed, with the jackknife's interval") {
  // Three seeds with 2, 1 and 0 statements; returned[s][s] does not count.
  const std::vector<double> statements = {2.0, 1.0, 0.0};
  const std::vector<std::vector<double>> returned = {{9.0, 2.0, 1.0}, {1.0, 9.0, 0.0}, {0.0, 0.0, 9.0}};
  const auto share = ShareOverPairs(statements, returned);
  CHECK(share.share == Approx(4.0 / 6.0));
  // Without one seed: 0 of 1, 1 of 2, 3 of 3.
  const double squares = 0.25 + 0.0 + 0.25;
  const double half = StudentQuantile975(2.0) * std::sqrt(2.0 / 3.0 * squares);
  CHECK(share.ci_low == Approx(std::max(0.0, 4.0 / 6.0 - half)).margin(1e-12));
  CHECK(share.ci_high == Approx(std::min(1.0, 4.0 / 6.0 + half)));
  CHECK_THROWS_AS(ShareOverPairs({0.0, 0.0}, {{0.0, 0.0}, {0.0, 0.0}}), Error);
}

TEST_CASE("a mean over seeds has Student's interval, and one seed has none") {
  const auto three = OverSeeds({1.0, 2.0, 6.0});
  CHECK(three.mean == 3.0);
  REQUIRE(three.ci95);
  // Standard deviation sqrt(7), t of two degrees of freedom 4.302653.
  CHECK(three.ci95->second == Approx(3.0 + 4.302653 * std::sqrt(7.0 / 3.0)).epsilon(1e-4));
  CHECK(three.ci95->first == Approx(3.0 - 4.302653 * std::sqrt(7.0 / 3.0)).epsilon(1e-4));
  CHECK(three.values == std::vector<double>{1.0, 2.0, 6.0});
  CHECK_FALSE(OverSeeds({4.0}).ci95);
  CHECK_THROWS_AS(OverSeeds({}), Error);
}
