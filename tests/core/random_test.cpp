#include "bitplan/core/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "support/catch.h"

using bitplan::RandomStream;
using bitplan::StreamSeed;

TEST_CASE("a stream's first values never change: plans are reproduced from them") {
  RandomStream stream(1, "core/test");
  CHECK(stream.Next() == 0x53771cef6ace0369ULL);
  CHECK(stream.Next() == 0x8d0441788e66e61fULL);
  CHECK(stream.Next() == 0x28aee3292d21c72cULL);
  CHECK(StreamSeed(1, "core/test") == 0x53771cef6ace0369ULL);
}

TEST_CASE("streams of other names or other seeds share no value") {
  RandomStream a(1, "training/shuffle"), b(1, "training/augment"), c(2, "training/shuffle");
  for (int i = 0; i < 1000; ++i) {
    const auto x = a.Next(), y = b.Next(), z = c.Next();
    CHECK(x != y);
    CHECK(x != z);
    CHECK(y != z);
  }
}

TEST_CASE("streams of neighbouring names are uncorrelated") {
  RandomStream a(1, "layer/1"), b(1, "layer/2");
  const int draws = 100000;
  double sum = 0.0;
  for (int i = 0; i < draws; ++i) sum += (a.Uniform() - 0.5) * (b.Uniform() - 0.5);
  CHECK(std::abs(sum / draws) < 5.0 / 12.0 / std::sqrt(draws));  // five standard errors
}

TEST_CASE("uniform draws fill zero to one evenly") {
  RandomStream stream(7, "core/uniform");
  const int draws = 100000;
  std::array<int, 20> bins{};
  for (int i = 0; i < draws; ++i) {
    const double u = stream.Uniform();
    REQUIRE(u >= 0.0);
    REQUIRE(u < 1.0);
    ++bins[static_cast<std::size_t>(u * 20)];
  }
  double chi2 = 0.0;
  for (const int count : bins) chi2 += std::pow(count - draws / 20.0, 2) / (draws / 20.0);
  CHECK(chi2 < 50.8);  // 19 degrees of freedom, p = 1e-4
  const double bounded = stream.Uniform(-3.0, -2.0);
  CHECK(bounded >= -3.0);
  CHECK(bounded < -2.0);
}

TEST_CASE("normal draws have mean 0, variance 1 and no excess in the tails") {
  RandomStream stream(7, "core/normal");
  const int draws = 200000;
  double sum = 0.0, squares = 0.0, fourth = 0.0;
  for (int i = 0; i < draws; ++i) {
    const double z = stream.Normal();
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  CHECK(std::abs(sum / draws) < 5.0 / std::sqrt(draws));
  CHECK(std::abs(squares / draws - 1.0) < 5.0 * std::sqrt(2.0 / draws));
  CHECK(std::abs(fourth / draws - 3.0) < 5.0 * std::sqrt(96.0 / draws));
}

TEST_CASE("an index into a size that does not divide 2^64 is not biased") {
  // Taken modulo 3 * 2^62 without rejection, the lowest third would come up twice as often as the others.
  RandomStream stream(3, "core/index");
  const std::uint64_t third = 1ULL << 62;
  std::array<int, 3> counts{};
  for (int i = 0; i < 30000; ++i) ++counts.at(stream.Index(3 * third) / third);
  for (const int count : counts) CHECK(std::abs(count - 10000) < 5 * 82);  // five standard deviations
  CHECK(stream.Index(1) == 0);
}

TEST_CASE("a permutation holds every index once, and every order is equally likely") {
  RandomStream stream(5, "core/permutation");
  auto order = stream.Permutation(1000);
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (std::int64_t i = 0; i < 1000; ++i) REQUIRE(order[i] == i);
  CHECK(stream.Permutation(0).empty());

  std::array<int, 27> counts{};  // orders of three, coded in base 3
  for (int i = 0; i < 60000; ++i) {
    const auto three = stream.Permutation(3);
    ++counts[three[0] * 9 + three[1] * 3 + three[2]];
  }
  int seen = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    ++seen;
    CHECK(std::abs(count - 10000) < 5 * 92);
  }
  CHECK(seen == 6);
}
