#include "bitplan/core/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

// Binary digits of the rational part / whole, 0 <= part <= whole, one at a time by long division: exact. A uniform
// number in [0, 1), drawn digit by digit for 64 samples at once (one word holds one digit of each), is below the
// rational from the first digit on in which it has 0 and the rational 1.
class Comparator {
 public:
  Comparator(std::uint64_t part, std::uint64_t whole) : rest_(part), whole_(whole), all_(part == whole) {}

  // The next digit of the 64 numbers.
  void Digit(std::uint64_t word) {
    rest_ *= 2;
    if (rest_ >= whole_) {
      rest_ -= whole_;
      below_ |= undecided_ & ~word;
      undecided_ &= word;
    } else {
      undecided_ &= ~word;
    }
  }
  // No digit to come can make a further number smaller.
  [[nodiscard]] bool decided() const { return all_ || rest_ == 0 || undecided_ == 0; }
  [[nodiscard]] std::uint64_t below() const { return all_ ? ~std::uint64_t{0} : below_; }

 private:
  std::uint64_t rest_, whole_;
  bool all_;
  std::uint64_t below_ = 0, undecided_ = ~std::uint64_t{0};
};

// Of n samples drawn with replacement from n, of which the first b favour one side and the next c the other: the drawn
// counts of the two. Exact (no normal or Poisson approximation), about eight random words for 64 samples.
std::pair<std::int64_t, std::int64_t> Resample(std::uint64_t n, std::uint64_t b, std::uint64_t c,
                                               RandomStream& stream) {
  std::int64_t first = 0, both = 0;
  for (std::uint64_t done = 0; done < n; done += 64) {
    const std::uint64_t lanes = n - done >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (n - done)) - 1;
    Comparator below_b(b, n), below_both(b + c, n);
    while (!below_b.decided() || !below_both.decided()) {
      const std::uint64_t word = stream.Next();
      below_b.Digit(word);
      below_both.Digit(word);
    }
    first += std::popcount(below_b.below() & lanes);
    both += std::popcount(below_both.below() & lanes);
  }
  return {first, both - first};
}

// Linear interpolation between order statistics.
template <typename Number>
double SortedQuantile(const std::vector<Number>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  const double share = position - static_cast<double>(below);
  return (1.0 - share) * static_cast<double>(sorted[below]) + share * static_cast<double>(sorted[above]);
}

std::vector<double> MeanRanks(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i + 1;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    const double mean = 0.5 * static_cast<double>(i + end - 1);
    for (; i < end; ++i) ranks[order[i]] = mean;
  }
  return ranks;
}

// Samples that only `a` has right, and that only `b` has.
std::pair<std::int64_t, std::int64_t> Discordant(const std::vector<std::uint8_t>& a,
                                                 const std::vector<std::uint8_t>& b) {
  std::int64_t only_a = 0, only_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    only_a += a[i] != 0 && b[i] == 0;
    only_b += a[i] == 0 && b[i] != 0;
  }
  return {only_a, only_b};
}

// What the samples of all seeds add; of right answers their number, exactly.
double Sum(const SeedOutcomes& outcomes) {
  double sum = 0.0;
  for (const Outcomes& of_seed : outcomes) {
    for (std::size_t i = 0; i < of_seed.size(); ++i) sum += of_seed[i];
  }
  return sum;
}

// Student's two-sided p of the mean difference over samples.
double PairedP(const Outcomes& a, const Outcomes& b) {
  if (a.size() < 2) return 1.0;
  const auto n = static_cast<double>(a.size());
  double mean = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) mean += (a[i] - b[i]) / n;
  for (std::size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
  if (squares <= 0.0) return mean == 0.0 ? 1.0 : 0.0;
  return StudentTwoSided(mean / std::sqrt(squares / (n - 1.0) / n), n - 1.0);
}

// Two-sided p of `ahead` against `other`; 1 when it is not ahead.
double AheadP(const SeedOutcomes& ahead, const SeedOutcomes& other, SeedSamples samples) {
  if (Sum(ahead) <= Sum(other)) return 1.0;
  if (ahead.size() > 1) return CompareOverSeeds(ahead, other, samples).p;
  if (ahead.front().correct() == nullptr) return PairedP(ahead.front(), other.front());
  const auto [won, lost] = Discordant(*ahead.front().correct(), *other.front().correct());
  return McNemarExact(won, lost);
}

}  // namespace

PairedComparison ComparePaired(const std::vector<std::uint8_t>& float_correct,
                               const std::vector<std::uint8_t>& quantized_correct, int resamples, RandomStream stream) {
  if (float_correct.size() != quantized_correct.size() || float_correct.empty() || resamples < 1) {
    throw Error(ErrorKind::kInternal,
                "ComparePaired needs two equally long, non-empty lists and at least one resample");
  }
  const auto [lost, won] = Discordant(float_correct, quantized_correct);
  std::vector<std::int64_t> drops(static_cast<std::size_t>(resamples));
  for (std::int64_t& drop : drops) {
    const auto [drawn_lost, drawn_won] = Resample(float_correct.size(), lost, won, stream);
    drop = drawn_lost - drawn_won;
  }
  std::sort(drops.begin(), drops.end());
  const auto samples = static_cast<double>(float_correct.size());
  return {.drop = static_cast<double>(lost - won) / samples,
          .ci_low = SortedQuantile(drops, 0.025) / samples,
          .ci_high = SortedQuantile(drops, 0.975) / samples,
          .mcnemar_p = McNemarExact(lost, won)};
}

PairedComparison CompareRatios(const std::vector<double>& float_gained, const std::vector<double>& quantized_gained,
                               const std::vector<double>& possible, int resamples, RandomStream stream) {
  const std::size_t images = possible.size();
  const double all = std::accumulate(possible.begin(), possible.end(), 0.0);
  if (float_gained.size() != images || quantized_gained.size() != images || !(all > 0.0) || resamples < 1) {
    throw Error(ErrorKind::kInternal, "CompareRatios needs equally long lists, something to gain and a resample");
  }
  std::vector<double> lost(images);
  for (std::size_t i = 0; i < images; ++i) lost[i] = float_gained[i] - quantized_gained[i];
  std::vector<double> drops(static_cast<std::size_t>(resamples));
  for (double& drop : drops) {
    double drawn_lost = 0.0, drawn = 0.0;
    for (std::size_t i = 0; i < images; ++i) {
      const auto image = static_cast<std::size_t>(stream.Index(images));
      drawn_lost += lost[image];
      drawn += possible[image];
    }
    drop = drawn > 0.0 ? drawn_lost / drawn : 0.0;
  }
  std::sort(drops.begin(), drops.end());
  return {.drop = std::accumulate(lost.begin(), lost.end(), 0.0) / all,
          .ci_low = SortedQuantile(drops, 0.025),
          .ci_high = SortedQuantile(drops, 0.975)};
}

Outcomes::Outcomes(const std::vector<double>* gained, const std::vector<double>* possible)
    : gained_(gained), possible_(possible) {
  const double all = std::accumulate(possible->begin(), possible->end(), 0.0);
  if (gained->size() != possible->size() || !(all > 0.0)) {
    throw Error(ErrorKind::kInternal, "Outcomes needs equally long lists and something to gain");
  }
  scale_ = static_cast<double>(gained->size()) / all;
}

PairedComparison ComparePaired(const Outcomes& better, const Outcomes& worse, int resamples, RandomStream stream) {
  if ((better.correct() == nullptr) != (worse.correct() == nullptr)) {
    throw Error(ErrorKind::kInternal, "ComparePaired needs outcomes of one kind");
  }
  if (better.correct() != nullptr) {
    return ComparePaired(*better.correct(), *worse.correct(), resamples, std::move(stream));
  }
  return CompareRatios(better.gained(), worse.gained(), better.possible(), resamples, std::move(stream));
}

double DropUpperBound(std::int64_t lost, std::int64_t gained, std::int64_t samples) {
  constexpr double kNormal95 = 1.6448536269514722;  // 95 % quantile
  const double b = static_cast<double>(lost) + 0.5, c = static_cast<double>(gained), half = 0.5 * kNormal95;
  const double bound = b - c + 2.0 * half * half + kNormal95 * std::sqrt(b + c + half * half);
  return std::min(1.0, bound / static_cast<double>(samples));
}

MeanDifference PairedMean(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.size() < 2) {
    throw Error(ErrorKind::kInternal, "PairedMean needs two equally long lists of at least two entries");
  }
  const auto n = static_cast<double>(a.size());
  double mean = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) mean += (static_cast<double>(a[i]) - static_cast<double>(b[i])) / n;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double deviation = static_cast<double>(a[i]) - static_cast<double>(b[i]) - mean;
    squares += deviation * deviation;
  }
  const double half = StudentQuantile975(n - 1.0) * std::sqrt(squares / (n - 1.0) / n);
  return {mean, mean - half, mean + half};
}

double McNemarExact(std::int64_t b, std::int64_t c) {
  const std::int64_t pairs = b + c, less = std::min(b, c);
  const auto log_factorial = [](std::int64_t n) { return std::lgamma(static_cast<double>(n) + 1.0); };
  double tail = 0.0;
  for (std::int64_t i = 0; i <= less; ++i) {
    tail += std::exp(log_factorial(pairs) - log_factorial(i) - log_factorial(pairs - i) -
                     static_cast<double>(pairs) * std::log(2.0));
  }
  return std::min(1.0, 2.0 * tail);
}

FamilyLead CompareFamilies(const std::vector<SeedOutcomes>& first, const std::vector<SeedOutcomes>& second,
                           SeedSamples samples) {
  if (first.empty() || second.empty()) {
    throw Error(ErrorKind::kInternal, "CompareFamilies needs a network in either family");
  }
  for (const auto& family : {first, second}) {
    for (const SeedOutcomes& network : family) {
      const bool same = network.size() == first.front().size() && !network.empty() &&
                        std::equal(network.begin(), network.end(), first.front().begin(),
                                   [](const Outcomes& a, const Outcomes& b) { return a.size() == b.size(); });
      if (!same) throw Error(ErrorKind::kInternal, "CompareFamilies needs the same seeds and samples of everyone");
    }
  }
  const auto best = [&](const std::vector<SeedOutcomes>& family) {
    std::size_t at = 0;
    for (std::size_t i = 1; i < family.size(); ++i) {
      if (Sum(family[i]) > Sum(family[at])) at = i;
    }
    return at;
  };
  // Of one network against all of a family, paid for having been chosen from `choices`.
  const auto p_against = [samples](const SeedOutcomes& ahead, const std::vector<SeedOutcomes>& behind,
                                   std::size_t choices) {
    double largest = 0.0;
    for (const SeedOutcomes& other : behind) largest = std::max(largest, AheadP(ahead, other, samples));
    return std::min(1.0, static_cast<double>(choices) * largest);
  };
  FamilyLead result{best(first), best(second), 0.0, 1.0};
  const double lead = Sum(first[result.first]) - Sum(second[result.second]);
  std::size_t entries = 0;
  for (const Outcomes& of_seed : first.front()) entries += of_seed.size();
  result.lead = lead / static_cast<double>(std::max<std::size_t>(1, entries));
  if (lead > 0.0) result.p = p_against(first[result.first], second, first.size());
  if (lead < 0.0) result.p = p_against(second[result.second], first, second.size());
  return result;
}

double SpearmanCorrelation(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size() || a.size() < 2) {
    throw Error(ErrorKind::kInternal, "SpearmanCorrelation needs two equally long lists of at least two values");
  }
  const std::vector<double> x = MeanRanks(a), y = MeanRanks(b);
  const double mean = 0.5 * static_cast<double>(a.size() - 1);
  double xx = 0.0, yy = 0.0, xy = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
    xy += (x[i] - mean) * (y[i] - mean);
  }
  return xx > 0.0 && yy > 0.0 ? xy / std::sqrt(xx * yy) : 0.0;
}

double Auroc(const std::vector<double>& negative, const std::vector<double>& positive) {
  if (negative.empty() || positive.empty()) {
    throw Error(ErrorKind::kInternal, "Auroc needs at least one negative and one positive score");
  }
  std::vector<double> all = negative;
  all.insert(all.end(), positive.begin(), positive.end());
  const std::vector<double> ranks = MeanRanks(all);
  const auto n = static_cast<double>(negative.size()), p = static_cast<double>(positive.size());
  double sum = 0.0;
  for (std::size_t i = negative.size(); i < ranks.size(); ++i) sum += ranks[i];
  return (sum - 0.5 * p * (p - 1.0)) / (n * p);
}

}  // namespace bitplan
