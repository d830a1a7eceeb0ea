// What fresh calibration data would do to a table. They err as the data of the table did, so a fresh table lies away
// from this one by the difference of two such errors: a ratio of two replicates. The bootstrap behind them knows its
// own spread from minibatches with heavy tails, and does not see that ranges are fitted to other images. So every
// repetition has a spread of its own, and deviations follow Student's t with four degrees of freedom: as few as
// `bitplan sure` asks for (docs/compare.md).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/random.h"

namespace bitplan {
namespace {

constexpr std::size_t kSeeds = 32;         // repetitions where the seed is all that varies
constexpr std::size_t kRepetitions = 128;  // else
constexpr double kMostLog = 30.0;          // a rise is moved by e^30 at most

// One repetition.
struct Freshness {
  double spread = 1.0;
  std::size_t replicate = 0, other_replicate = 0;
  std::size_t network = 0, seed = 0, other_seed = 0;
};

// Draws are n networks with each of n seeds, network r mod n, seed r / n; another number of them is networks alone.
struct DrawTable {
  explicit DrawTable(const std::vector<PosteriorDraw>& draws) : entries(draws) {
    const auto root = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(draws.size()))));
    networks = root * root == draws.size() ? root : draws.size();
    seeds = networks == 0 ? 0 : draws.size() / networks;
  }
  // What `figure` of the entries is for the network of a repetition with fresh data: its mean over the seeds, and the
  // difference of two seeds.
  [[nodiscard]] double Fresh(const Freshness& fresh, const std::function<double(const PosteriorDraw&)>& figure) const {
    const auto at = [&](std::size_t seed) { return figure(entries[fresh.network + networks * seed]); };
    double mean = 0.0;
    for (std::size_t s = 0; s < seeds; ++s) mean += at(s) / static_cast<double>(seeds);
    return seeds < 2 ? mean : mean + fresh.spread * (at(fresh.seed) - at(fresh.other_seed));
  }

  const std::vector<PosteriorDraw>& entries;
  std::size_t networks = 0, seeds = 0;
};

// The r-th ordered pair of two different numbers below n, all in turn; {0, 0} where there are none.
std::pair<std::size_t, std::size_t> PairOf(std::size_t r, std::size_t n) {
  if (n < 2) return {0, 0};
  return {r % n, (r + 1 + (r / n) % (n - 1)) % n};
}

std::vector<Freshness> FreshData(std::size_t replicates, const DrawTable& draws, std::uint64_t seed) {
  std::vector<Freshness> all(kRepetitions);
  RandomStream stream(seed, "allocators/confidence");
  const auto one = stream.Permutation(static_cast<std::int64_t>(kRepetitions));
  const auto other = stream.Permutation(static_cast<std::int64_t>(kRepetitions));
  const auto exponential = [](std::int64_t order) {  // its quantiles
    return -std::log((static_cast<double>(order) + 0.5) / static_cast<double>(kRepetitions));
  };
  for (std::size_t r = 0; r < kRepetitions; ++r) {
    Freshness& fresh = all[r];
    // A chi-squared variable of four degrees is twice the sum of two exponential ones.
    fresh.spread = std::sqrt(2.0 / (exponential(one[r]) + exponential(other[r])));
    std::tie(fresh.replicate, fresh.other_replicate) = PairOf(r, replicates);
    if (draws.networks == 0) continue;
    fresh.network = r % draws.networks;
    std::tie(fresh.seed, fresh.other_seed) = PairOf(r / draws.networks, draws.seeds);
  }
  return all;
}

// Percentiles ascend, also when what moves them is an estimate.
void Shift(std::vector<double>& percentiles, const DrawTable& draws, const Freshness& fresh, std::size_t unit,
           std::vector<std::vector<double>> PosteriorDraw::*shifts) {
  if ((draws.entries.front().*shifts)[unit].size() != percentiles.size()) return;  // draws without scores
  for (std::size_t i = 0; i < percentiles.size(); ++i) {
    percentiles[i] += draws.Fresh(fresh, [&](const PosteriorDraw& draw) { return (draw.*shifts)[unit][i]; });
  }
  std::sort(percentiles.begin(), percentiles.end());
}

// Coherence is a unit's rise over the sum for single weights, so it moves along with the subset, not with the network.
AllocationProblem OnFreshData(const AllocationProblem& problem, const DrawTable& draws, const Freshness& fresh) {
  AllocationProblem repeated{problem.units, problem.widths, problem.loss_rise, {}};
  for (std::size_t u = 0; u < repeated.units.size(); ++u) {
    Unit& unit = repeated.units[u];
    for (std::size_t w = 0; w < repeated.widths.size(); ++w) {
      double& rise = repeated.loss_rise[u][w];
      if (problem.replicates.size() > 1) {
        const double one = problem.replicates[fresh.replicate][u][w];
        const double other = problem.replicates[fresh.other_replicate][u][w];
        const double log_ratio = one > 0.0 && other > 0.0 ? fresh.spread * std::log(one / other) : 0.0;
        const double ratio = std::exp(std::clamp(log_ratio, -kMostLog, kMostLog));
        rise *= ratio;
        if (!unit.coherence.empty()) unit.coherence[w] *= ratio;
      }
      if (draws.networks == 0) continue;
      const double moved = draws.Fresh(fresh, [&](const PosteriorDraw& draw) { return std::log(draw.rise[u][w]); });
      rise *= std::exp(std::clamp(moved, -kMostLog, kMostLog));
    }
    if (draws.networks == 0) continue;
    Shift(unit.score_percentiles, draws, fresh, u, &PosteriorDraw::score);
    Shift(unit.log_sigma_percentiles, draws, fresh, u, &PosteriorDraw::log_sigma);
  }
  return repeated;
}

// Whether what the widths depend on varies with the calibration data.
bool Varies(const Allocator& allocator, const AllocationProblem& problem, const AllocateOptions& options,
            std::size_t draws) {
  if (draws > 0) return true;
  if (problem.replicates.size() < 2) return false;
  if (allocator.reads == AllocatorReads::kLossRise) return true;
  const bool coherence =
      std::any_of(problem.units.begin(), problem.units.end(), [](const Unit& unit) { return !unit.coherence.empty(); });
  return allocator.reads == AllocatorReads::kCoherence && coherence && options.mode != "rank";
}

std::vector<double> StatedProbabilities(const AllocateOptions& options, const Allocation& answer) {
  std::vector<int> widths = options.bits;
  std::sort(widths.begin(), widths.end());
  std::vector<double> confidence;
  for (std::size_t u = 0; u < answer.bits.size(); ++u) {
    const std::vector<double>& row = answer.width_probabilities[u];
    const auto column = std::lower_bound(widths.begin(), widths.end(), answer.bits[u]) - widths.begin();
    confidence.push_back(row.empty() ? 1.0 : row.at(static_cast<std::size_t>(column)));
  }
  return confidence;
}

}  // namespace

std::vector<double> WidthConfidence(const AllocationProblem& problem, const std::vector<PosteriorDraw>& draws,
                                    const AllocateOptions& options, std::uint64_t seed, const Allocation& answer) {
  const Allocator& allocator = FindAllocator(options.allocator);
  if (allocator.needs_oracle) {
    return answer.width_probabilities.empty() ? std::vector<double>{} : StatedProbabilities(options, answer);
  }
  const DrawTable table(draws);
  std::vector<Freshness> repetitions(kSeeds);
  if (allocator.reads != AllocatorReads::kSizes) {
    if (!Varies(allocator, problem, options, draws.size())) return {};
    repetitions = FreshData(problem.replicates.size(), table, seed);
  }
  std::vector<double> confidence(problem.units.size(), 0.0);
  for (const Freshness& fresh : repetitions) {
    ++seed;
    const Allocation again = allocator.reads == AllocatorReads::kSizes
                                 ? Allocate(problem, options, seed)
                                 : Allocate(OnFreshData(problem, table, fresh), options, seed);
    for (std::size_t u = 0; u < confidence.size(); ++u) confidence[u] += again.bits[u] == answer.bits[u] ? 1.0 : 0.0;
  }
  for (double& share : confidence) share /= static_cast<double>(repetitions.size());
  return confidence;
}

}  // namespace bitplan
