// Means over calibration seeds and samples, and the distribution of Student's t that their intervals need.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <numbers>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/core/statistics.h"

namespace bitplan {
namespace {

// Mean squares of a two-way table of differences, `at(s, i)`, without replication.
struct TwoWayTable {
  double mean = 0.0;
  double seeds = 0.0, samples = 0.0, rest = 0.0;  // mean squares
};

template <typename At>
TwoWayTable MeanSquares(std::size_t seeds, std::size_t samples, At at) {
  std::vector<double> of_seed(seeds, 0.0), of_sample(samples, 0.0);
  double squares = 0.0;
  for (std::size_t s = 0; s < seeds; ++s) {
    for (std::size_t i = 0; i < samples; ++i) {
      const double value = at(s, i);
      of_seed[s] += value;
      of_sample[i] += value;
      squares += value * value;
    }
  }
  const auto rows = static_cast<double>(seeds), columns = static_cast<double>(samples);
  TwoWayTable table;
  table.mean = std::accumulate(of_seed.begin(), of_seed.end(), 0.0) / (rows * columns);
  double between_seeds = 0.0, between_samples = 0.0;
  for (const double sum : of_seed) between_seeds += (sum / columns - table.mean) * (sum / columns - table.mean);
  for (const double sum : of_sample) between_samples += (sum / rows - table.mean) * (sum / rows - table.mean);
  between_seeds *= columns;
  between_samples *= rows;
  const double all = squares - rows * columns * table.mean * table.mean;
  table.seeds = between_seeds / (rows - 1.0);
  table.samples = between_samples / (columns - 1.0);
  table.rest = std::max(0.0, all - between_seeds - between_samples) / ((rows - 1.0) * (columns - 1.0));
  return table;
}

// The variance of a mean over seeds and samples, and the part of it that the scatter of the seeds alone says.
struct MeanVariance {
  double mean = 0.0, spread = 0.0;  // standard deviation over seeds of the mean over samples
  double of_seeds = 0.0, variance = 0.0;
};

// The list of one seed.
const Outcomes& ListOf(const Outcomes& outcomes) { return outcomes; }
const std::vector<float>& ListOf(const std::vector<float>* losses) { return *losses; }

// Samples shared by all seeds. Chance may bring the seeds' means closer together than their own samples allow (each of
// two seeds loses another image): E[MS_s] is never below E[MS_e], so the estimate is not either.
template <typename Values>
MeanVariance CrossedVariance(const Values& a, const Values& b) {
  const std::size_t seeds = a.size(), count = ListOf(a.front()).size();
  const auto table = MeanSquares(seeds, count, [&](std::size_t s, std::size_t i) {
    return static_cast<double>(ListOf(a[s])[i]) - static_cast<double>(ListOf(b[s])[i]);
  });
  const auto columns = static_cast<double>(count), entries = static_cast<double>(seeds) * columns;
  const double of_samples = std::max(0.0, table.samples - table.rest);
  return {table.mean, std::sqrt(table.seeds / columns), table.seeds / entries,
          std::max(table.seeds + of_samples, table.rest) / entries};
}

// Every seed with samples of its own, as many as it has: independent means, which scatter at least as their samples do.
template <typename Values>
MeanVariance OwnVariance(const Values& a, const Values& b) {
  const auto seeds = static_cast<double>(a.size());
  std::vector<double> means;
  double within = 0.0;
  for (std::size_t s = 0; s < a.size(); ++s) {
    const auto &ours = ListOf(a[s]), &theirs = ListOf(b[s]);
    const auto n = static_cast<double>(ours.size());
    double sum = 0.0, squares = 0.0;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const double value = static_cast<double>(ours[i]) - static_cast<double>(theirs[i]);
      sum += value;
      squares += value * value;
    }
    means.push_back(sum / n);
    within += std::max(0.0, squares - sum * sum / n) / (n - 1.0) / n / seeds;
  }
  MeanVariance result;
  result.mean = std::accumulate(means.begin(), means.end(), 0.0) / seeds;
  for (const double mean : means) result.spread += (mean - result.mean) * (mean - result.mean) / (seeds - 1.0);
  result.of_seeds = result.spread / seeds;
  result.variance = std::max(result.of_seeds, within / seeds);
  result.spread = std::sqrt(result.spread);
  return result;
}

template <typename Values>
SeedMean DifferencesOverSeeds(const Values& a, const Values& b, SeedSamples samples) {
  const std::size_t seeds = a.size();
  bool sound = seeds >= 2 && b.size() == seeds;
  for (std::size_t s = 0; sound && s < seeds; ++s) {
    const std::size_t size = ListOf(a[s]).size();
    sound =
        size >= 2 && ListOf(b[s]).size() == size && (samples == SeedSamples::kOwn || size == ListOf(a.front()).size());
  }
  if (!sound) throw Error(ErrorKind::kInternal, "CompareOverSeeds needs two seeds and samples, as many on both sides");
  const auto [mean, spread, of_seeds, variance] =
      samples == SeedSamples::kShared ? CrossedVariance(a, b) : OwnVariance(a, b);
  SeedMean result{.mean = mean, .ci_low = mean, .ci_high = mean, .spread = spread};
  if (variance <= 0.0) {
    result.p = mean == 0.0 ? 1.0 : 0.0;
    return result;
  }
  // Seeds that all agree leave the samples: as many degrees as a normal distribution has.
  constexpr double kMostDegrees = 1e9;
  const double share = of_seeds / variance;
  const double degrees = std::min(kMostDegrees, (static_cast<double>(seeds) - 1.0) / std::max(share * share, 1e-12));
  const double error = std::sqrt(variance);
  const double half = StudentQuantile975(degrees) * error;
  result.ci_low -= half;
  result.ci_high += half;
  result.p = StudentTwoSided(mean / error, degrees);
  return result;
}

// The share without one seed, or with all (`without` beyond the last); nothing where no statement is left.
std::optional<double> ShareWithout(const std::vector<double>& statements,
                                   const std::vector<std::vector<double>>& returned, std::size_t without) {
  double made = 0.0, came = 0.0;
  for (std::size_t s = 0; s < statements.size(); ++s) {
    for (std::size_t t = 0; t < statements.size(); ++t) {
      if (s == t || s == without || t == without) continue;
      made += statements[s];
      came += returned[s][t];
    }
  }
  if (made <= 0.0) return std::nullopt;
  return came / made;
}

// The continued fraction of the incomplete beta function, by Lentz's method (Numerical Recipes, section 6.4).
double BetaFraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300, kPrecision = 1e-15;
  constexpr int kMost = 100000;
  const auto kept_from_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1.0, d = 1.0 / kept_from_zero(1.0 - (a + b) * x / (a + 1.0)), fraction = d;
  for (int m = 1; m <= kMost; ++m) {
    double change = 1.0;
    for (const double term : {m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
                              -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))}) {
      d = 1.0 / kept_from_zero(1.0 + term * d);
      c = kept_from_zero(1.0 + term / c);
      change = c * d;
      fraction *= change;
    }
    if (std::abs(change - 1.0) < kPrecision) break;
  }
  return fraction;
}

// The regularized incomplete beta function I_x(a, b), 0 <= x <= 1.
double IncompleteBeta(double a, double b, double x) {
  if (x <= 0.0 || x >= 1.0) return x <= 0.0 ? 0.0 : 1.0;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1.0) / (a + b + 2.0)) return front * BetaFraction(a, b, x) / a;
  return 1.0 - front * BetaFraction(b, a, 1.0 - x) / b;
}

// With t = sqrt(degrees) tan(angle) the density is in proportion to cos(angle)^(degrees - 1): summed up to the angle
// that 95 % of its mass over the quarter circle lies below.
double StudentQuantile975BySum(double degrees) {
  constexpr int kSteps = 20000;
  const double width = std::numbers::pi / 2.0 / kSteps;
  const auto mass = [&](int k) { return std::pow(std::cos((k + 0.5) * width), degrees - 1.0); };
  double total = 0.0;
  for (int k = 0; k < kSteps; ++k) total += mass(k);
  double below = 0.0;
  int k = 0;
  while (below + mass(k) < 0.95 * total) below += mass(k++);
  return std::sqrt(degrees) * std::tan((k + (0.95 * total - below) / mass(k)) * width);
}

}  // namespace

SeedMean CompareOverSeeds(const SeedOutcomes& a, const SeedOutcomes& b, SeedSamples samples) {
  return DifferencesOverSeeds(a, b, samples);
}

SeedMean CompareOverSeeds(const SeedLosses& a, const SeedLosses& b, SeedSamples samples) {
  return DifferencesOverSeeds(a, b, samples);
}

SharePerPair ShareOverPairs(const std::vector<double>& statements, const std::vector<std::vector<double>>& returned) {
  const auto share = ShareWithout(statements, returned, statements.size());
  if (!share) throw Error(ErrorKind::kInternal, "ShareOverPairs needs two seeds and a statement");
  std::vector<double> without;
  for (std::size_t s = 0; s < statements.size(); ++s) {
    if (const auto rest = ShareWithout(statements, returned, s)) without.push_back(*rest);
  }
  SharePerPair result{.share = *share};
  if (without.size() < 2) return result;
  const auto n = static_cast<double>(without.size());
  const double mean = std::accumulate(without.begin(), without.end(), 0.0) / n;
  double squares = 0.0;
  for (const double value : without) squares += (value - mean) * (value - mean);
  const double half = StudentQuantile975(n - 1.0) * std::sqrt((n - 1.0) / n * squares);
  result.ci_low = std::max(0.0, *share - half);
  result.ci_high = std::min(1.0, *share + half);
  return result;
}

PairedComparison ComparePaired(const SeedOutcomes& better, const SeedOutcomes& worse, SeedSamples samples,
                               int resamples, const RandomStream& stream) {
  if (better.size() == 1 && worse.size() == 1) {
    return ComparePaired(better.front(), worse.front(), resamples, stream);
  }
  const auto over = CompareOverSeeds(better, worse, samples);
  return {.drop = over.mean, .ci_low = over.ci_low, .ci_high = over.ci_high, .mcnemar_p = over.p};
}

MeanDifference PairedMean(const SeedLosses& a, const SeedLosses& b, SeedSamples samples) {
  if (a.size() == 1 && b.size() == 1) return PairedMean(*a.front(), *b.front());
  const auto over = CompareOverSeeds(a, b, samples);
  return {over.mean, over.ci_low, over.ci_high};
}

MeanOverSeeds OverSeeds(std::vector<double> values) {
  if (values.empty()) throw Error(ErrorKind::kInternal, "a mean over no seeds");
  const auto n = static_cast<double>(values.size());
  MeanOverSeeds over;
  over.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() > 1) {
    double squares = 0.0;
    for (const double value : values) squares += (value - over.mean) * (value - over.mean);
    const double half = StudentQuantile975(n - 1.0) * std::sqrt(squares / (n - 1.0) / n);
    over.ci95 = {over.mean - half, over.mean + half};
  }
  over.values = std::move(values);
  return over;
}

double StudentTwoSided(double statistic, double degrees) {
  constexpr double kAsNormal = 1e6;  // from so many degrees on the two differ by less than the relative error
  if (degrees >= kAsNormal) return std::erfc(std::abs(statistic) / std::numbers::sqrt2);
  return IncompleteBeta(0.5 * degrees, 0.5, degrees / (degrees + statistic * statistic));
}

double StudentQuantile975(double degrees) {
  if (degrees < 30.0) return StudentQuantile975BySum(degrees);
  constexpr double z = 1.959963985, z2 = z * z;
  const double first = z * (z2 + 1.0) / 4.0, second = z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
               third = z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0;
  return z + first / degrees + second / (degrees * degrees) + third / (degrees * degrees * degrees);
}

}  // namespace bitplan
