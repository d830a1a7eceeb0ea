#include "bitplan/core/statistics.h"

#include <cmath>

#include "bitplan/core/error.h"
#include "support/catch.h"

using namespace bitplan;

namespace {

// `lost` samples only the float model has right, `won` only the quantized one, the rest both.
std::pair<std::vector<std::uint8_t>, std::vector<std::uint8_t>> Answers(int samples, int lost, int won) {
  std::vector<std::uint8_t> a(samples, 1), b(samples, 1);
  for (int i = 0; i < lost; ++i) b[i] = 0;
  for (int i = lost; i < lost + won; ++i) a[i] = 0;
  return {a, b};
}

PairedComparison Compare(int samples, int lost, int won, std::uint64_t seed = 1, int resamples = 10000) {
  const auto [a, b] = Answers(samples, lost, won);
  return ComparePaired(a, b, resamples, RandomStream(seed, "test/bootstrap"));
}

}  // namespace

TEST_CASE("a score that is a ratio of sums is compared by images, however many positions each of them has") {
  // Ten images: the quantized network loses all positions of two of them.
  const auto drop = [](double positions) {
    std::vector<double> possible(10, positions), before(10, positions), after(10, positions);
    after[3] = after[7] = 0.0;
    return CompareRatios(before, after, possible, 4000, RandomStream(1, "test/ratios"));
  };
  const PairedComparison few = drop(1.0), many = drop(1000.0);
  CHECK(few.drop == Approx(0.2));
  CHECK(many.drop == Approx(0.2));
  CHECK(many.ci_low == few.ci_low);    // a thousand positions of one image are one draw
  CHECK(many.ci_high == few.ci_high);  // the binomial of ten draws
  CHECK((few.ci_low == 0.0 && few.ci_high == Approx(0.5).margin(0.051)));
  CHECK(few.mcnemar_p == 1.0);
  // Images weigh by what they hold.
  const PairedComparison uneven =
      CompareRatios({30.0, 10.0}, {30.0, 5.0}, {30.0, 10.0}, 1000, RandomStream(2, "test/ratios"));
  CHECK(uneven.drop == Approx(5.0 / 40.0));
  CHECK((uneven.ci_low == 0.0 && uneven.ci_high == Approx(0.5)));
  CHECK_THROWS_AS(CompareRatios({1.0}, {1.0}, {0.0}, 10, RandomStream(1, "t")), Error);
  CHECK_THROWS_AS(CompareRatios({1.0}, {1.0, 2.0}, {1.0}, 10, RandomStream(1, "t")), Error);
}

TEST_CASE("networks of other tasks are compared by their ratios, of one seed and of several, and as families") {
  const std::vector<double> possible = {30.0, 10.0, 20.0, 40.0};
  const std::vector<double> good = {28.0, 9.0, 20.0, 36.0}, fair = {20.0, 9.0, 12.0, 30.0},
                            poor = {10.0, 4.0, 8.0, 20.0};
  const Outcomes best(&good, &possible), middle(&fair, &possible), worst(&poor, &possible);
  double mean = 0.0;
  for (std::size_t i = 0; i < best.size(); ++i) mean += best[i] / 4.0;
  CHECK(mean == Approx(93.0 / 100.0));
  const RandomStream stream(3, "test/outcomes");
  const auto paired = ComparePaired(best, middle, 500, stream);
  CHECK(paired.drop == Approx(0.22));
  CHECK(paired.ci_low == CompareRatios(good, fair, possible, 500, stream).ci_low);
  CHECK(CompareOverSeeds({best, best}, {middle, worst}, SeedSamples::kShared).mean == Approx(0.5 * (0.22 + 0.51)));
  const FamilyLead lead = CompareFamilies({{worst}, {best}}, {{middle}});
  CHECK(lead.first == 1);
  CHECK(lead.lead == Approx(0.22));
  // Student's t of the four differences, twice for the choice: 8, 0, 8, 6 hundredths of 100 possible.
  CHECK(lead.p == Approx(2.0 * StudentTwoSided(5.5 / (3.7859389 / 2.0), 3.0)).epsilon(1e-4));
  const std::vector<std::uint8_t> answers = {1, 0, 1, 1};
  CHECK_THROWS_AS(ComparePaired(best, Outcomes(&answers), 500, stream), Error);
  const std::vector<double> nothing(4, 0.0);
  CHECK_THROWS_AS(Outcomes(&good, &nothing), Error);
}

TEST_CASE("the t quantile is that of the tables") {
  CHECK(StudentQuantile975(1) == Approx(12.70620).epsilon(1e-5));
  CHECK(StudentQuantile975(2) == Approx(4.30265).epsilon(1e-5));
  CHECK(StudentQuantile975(3) == Approx(3.18245).epsilon(1e-5));
  CHECK(StudentQuantile975(9) == Approx(2.26216).epsilon(1e-5));
  CHECK(StudentQuantile975(29) == Approx(2.04523).epsilon(1e-5));
  CHECK(StudentQuantile975(30) == Approx(2.04227).epsilon(1e-5));
  CHECK(StudentQuantile975(1e9) == Approx(1.95996).epsilon(1e-5));
}

TEST_CASE("one family beats another when one of its members beats all of the other, and choosing it has its price") {
  // Of 100 samples the first `hits` are met, but for those from `from` on that `misses` takes out.
  const auto classifier = [](int hits, int from = 0, int misses = 0) {
    std::vector<std::uint8_t> correct(100, 0);
    for (int i = 0; i < hits; ++i) correct[static_cast<std::size_t>(i)] = i >= from && i < from + misses ? 0 : 1;
    return correct;
  };
  const auto strong = classifier(90), middle = classifier(80), weak = classifier(70), other = classifier(86, 0, 6);
  const auto alone = CompareFamilies({{&strong}}, {{&middle}});
  CHECK(alone.lead == Approx(0.1));
  CHECK(alone.p == Approx(McNemarExact(10, 0)));
  // Three to choose from; the rival that is hardest to tell apart counts: 6 samples won back and 4 more, 10 to 0.
  const auto chosen = CompareFamilies({{&weak}, {&strong}, {&middle}}, {{&weak}, {&other}});
  CHECK((chosen.first == 1 && chosen.second == 1));
  CHECK(chosen.p == Approx(3 * McNemarExact(10, 0)));
  const auto behind = CompareFamilies({{&weak}, {&middle}}, {{&strong}});
  CHECK(behind.lead == Approx(-0.1));
  CHECK(behind.p == Approx(McNemarExact(10, 0)));
  const auto equal = CompareFamilies({{&weak}, {&strong}}, {{&strong}});
  CHECK((equal.lead == 0.0 && equal.p == 1.0));
  CHECK_THROWS_AS(CompareFamilies({}, {{&strong}}), Error);
}

TEST_CASE("McNemar's exact p is the two-sided binomial tail") {
  CHECK(McNemarExact(0, 0) == 1.0);
  CHECK(McNemarExact(5, 5) == 1.0);
  CHECK(McNemarExact(1, 0) == Approx(1.0));
  CHECK(McNemarExact(5, 0) == Approx(2.0 / 32));
  CHECK(McNemarExact(0, 5) == Approx(2.0 / 32));
  CHECK(McNemarExact(10, 2) == Approx(2.0 * (1 + 12 + 66) / 4096));
  CHECK(McNemarExact(3000, 2800) == Approx(0.009).margin(0.001));
}

TEST_CASE("the paired interval has the width that the discordant pairs give it") {
  const PairedComparison result = Compare(10000, 60, 30);
  CHECK(result.drop == Approx(0.0030));
  CHECK(result.mcnemar_p == Approx(McNemarExact(60, 30)));
  // Normal approximation: standard error sqrt((b + c) - (b - c)^2 / n) / n.
  const double error = std::sqrt(90.0 - 900.0 / 10000) / 10000;
  CHECK(result.ci_low == Approx(0.0030 - 1.96 * error).margin(0.0001));
  CHECK(result.ci_high == Approx(0.0030 + 1.96 * error).margin(0.0001));
}

TEST_CASE("the paired interval holds for sample counts that are no multiple of 64 and for large shares") {
  const int samples = 1001, lost = 600, won = 300;
  const PairedComparison result = Compare(samples, lost, won);
  const double drop = 300.0 / samples;
  const double error = std::sqrt(900.0 / samples - drop * drop) / std::sqrt(samples);
  CHECK(result.drop == Approx(drop));
  CHECK(result.ci_low == Approx(drop - 1.96 * error).margin(0.05 * error));
  CHECK(result.ci_high == Approx(drop + 1.96 * error).margin(0.05 * error));
}

TEST_CASE("the upper bound of a drop is below it in at most 5 of 100 samples, also where few of them differ") {
  constexpr int kRepeats = 4000, kImages = 3334;
  // Expected numbers of lost and gained samples; without gained ones the labels are the float network's own.
  for (const auto& [lost, gained] : {std::pair{1.7, 0.0},
                                     {3.3, 0.0},
                                     {8.0, 0.0},
                                     {17.0, 0.0},
                                     {9.0, 1.0},
                                     {18.0, 3.0},
                                     {34.0, 10.0},
                                     {100.0, 60.0},
                                     {400.0, 380.0}}) {
    RandomStream stream(3, "test/drop");
    int below = 0;
    for (int r = 0; r < kRepeats; ++r) {
      std::int64_t b = 0, c = 0;
      for (int i = 0; i < kImages; ++i) {
        const double u = kImages * stream.Uniform(0.0, 1.0);
        b += u < lost ? 1 : 0;
        c += u >= lost && u < lost + gained ? 1 : 0;
      }
      below += DropUpperBound(b, c, kImages) < (lost - gained) / kImages ? 1 : 0;
    }
    INFO(lost << " " << gained << " " << below);
    CHECK(below <= 0.058 * kRepeats);
    if (lost > 50.0) CHECK(below >= 0.03 * kRepeats);
  }
  CHECK(DropUpperBound(0, 0, 1000) > 0.002);  // nothing seen is not nothing
  CHECK(DropUpperBound(0, 0, 1000) < 0.004);
  CHECK(DropUpperBound(60, 10, 1000) == Approx(0.0505 + 0.01385 + 0.00135).margin(5e-4));
  CHECK(DropUpperBound(3, 0, 3) == 1.0);
}

TEST_CASE("two networks that agree on every sample have the interval zero") {
  const PairedComparison same = Compare(500, 0, 0);
  CHECK(same.drop == 0.0);
  CHECK(same.ci_low == 0.0);
  CHECK(same.ci_high == 0.0);
  CHECK(same.mcnemar_p == 1.0);
  const PairedComparison opposite = Compare(64, 64, 0);
  CHECK(opposite.ci_low == 1.0);
  CHECK(opposite.ci_high == 1.0);
}

TEST_CASE("the bootstrap is the same for the same stream and another for another") {
  CHECK(Compare(777, 41, 23, 1, 100).ci_low == Compare(777, 41, 23, 1, 100).ci_low);
  int different = 0;
  for (std::uint64_t seed = 2; seed < 12; ++seed) {
    different += Compare(777, 41, 23, seed, 100).ci_low != Compare(777, 41, 23, 1, 100).ci_low;
  }
  CHECK(different > 0);
}

TEST_CASE("comparing lists of different length is refused") {
  CHECK_THROWS_AS(ComparePaired({1, 0}, {1}, 10, RandomStream(1, "t")), Error);
  CHECK_THROWS_AS(ComparePaired({}, {}, 10, RandomStream(1, "t")), Error);
  CHECK_THROWS_AS(ComparePaired({1}, {1}, 0, RandomStream(1, "t")), Error);
}

TEST_CASE("Spearman's correlation is 1 for any rising relation, -1 for a falling one, and shares ranks among ties") {
  CHECK(SpearmanCorrelation({1, 2, 3, 4}, {1, 10, 100, 1000}) == Approx(1.0));
  CHECK(SpearmanCorrelation({1, 2, 3, 4}, {4, 3, 2, -9}) == Approx(-1.0));
  CHECK(SpearmanCorrelation({1, 2, 3, 4, 5}, {2, 1, 4, 3, 5}) == Approx(0.8));
  // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
  CHECK(SpearmanCorrelation({1, 2, 2, 3}, {1, 2, 3, 4}) == Approx(4.5 / std::sqrt(4.5 * 5.0)));
  CHECK(SpearmanCorrelation({7, 7, 7}, {1, 2, 3}) == 0.0);
  CHECK_THROWS_AS(SpearmanCorrelation({1}, {1}), Error);
}

TEST_CASE("the area under the ROC curve counts pairs, ties as half") {
  CHECK(Auroc({1, 2, 3}, {4, 5}) == 1.0);
  CHECK(Auroc({4, 5}, {1, 2, 3}) == 0.0);
  CHECK(Auroc({7, 7}, {7}) == 0.5);
  RandomStream stream(1, "test/auroc");
  std::vector<double> negative, positive;
  for (int i = 0; i < 40; ++i) negative.push_back(static_cast<double>(stream.Index(12)));
  for (int i = 0; i < 25; ++i) positive.push_back(static_cast<double>(stream.Index(12)) + 2.0);
  double won = 0.0;
  for (const double n : negative) {
    for (const double p : positive) won += p > n ? 1.0 : p == n ? 0.5 : 0.0;
  }
  CHECK(Auroc(negative, positive) == Approx(won / (40.0 * 25.0)));
  CHECK_THROWS_AS(Auroc({}, {1}), Error);
}

TEST_CASE("the interval of a paired mean is Student's, and what both share cancels") {
  const std::vector<float> a = {1.0F, 2.0F, 3.0F, 4.0F}, b = {0.0F, 0.0F, 0.0F, 0.0F};
  const auto plain = PairedMean(a, b);
  const double half = 3.18245 * std::sqrt(5.0 / 3.0 / 4.0);
  CHECK(plain.mean == Approx(2.5));
  CHECK(plain.ci_low == Approx(2.5 - half).epsilon(1e-4));
  CHECK(plain.ci_high == Approx(2.5 + half).epsilon(1e-4));
  const auto shifted = PairedMean({1.5F, 2.5F, 3.5F}, {1.0F, 2.0F, 3.0F});
  CHECK((shifted.ci_low == Approx(0.5) && shifted.ci_high == Approx(0.5)));
  CHECK_THROWS_AS(PairedMean({1.0F}, {1.0F}), Error);
}
