#include <algorithm>

#include "bitplan/allocators/allocator.h"

namespace bitplan {
namespace {

constexpr std::size_t kSeeds = 32;  // repetitions where the seed is all that varies

// Percentiles ascend, also when what moves them is an estimate.
void Shift(std::vector<double>& percentiles, const std::vector<double>& shifts) {
  for (std::size_t i = 0; i < std::min(percentiles.size(), shifts.size()); ++i) percentiles[i] += shifts[i];
  std::sort(percentiles.begin(), percentiles.end());
}

// The table of one calibration subset. Coherence is a unit's rise over the sum for single weights, so it moves along.
AllocationProblem OnSubset(const AllocationProblem& problem, const std::vector<std::vector<double>>& loss_rise) {
  AllocationProblem subset{problem.units, problem.widths, loss_rise, {}};
  for (std::size_t u = 0; u < subset.units.size(); ++u) {
    std::vector<double>& coherence = subset.units[u].coherence;
    for (std::size_t w = 0; w < coherence.size(); ++w) {
      const double rise = problem.loss_rise[u][w];
      if (rise > 0.0 && loss_rise[u][w] > 0.0) coherence[w] *= loss_rise[u][w] / rise;
    }
  }
  return subset;
}

void Apply(const PosteriorDraw& draw, AllocationProblem& problem) {
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    Unit& unit = problem.units[u];
    for (std::size_t w = 0; w < problem.widths.size(); ++w) problem.loss_rise[u][w] *= draw.rise[u][w];
    Shift(unit.score_percentiles, draw.score[u]);
    Shift(unit.log_sigma_percentiles, draw.log_sigma[u]);
  }
}

// How often to repeat; 0 when what the widths hang on does not vary.
std::size_t Repetitions(const Allocator& allocator, const AllocationProblem& problem, const AllocateOptions& options,
                        std::size_t draws) {
  if (allocator.reads == AllocatorReads::kSizes) return kSeeds;
  const std::size_t subsets = problem.replicates.size(), most = std::max(subsets, draws);
  if (draws > 0) return (most + draws - 1) / draws * draws;
  if (allocator.reads == AllocatorReads::kLossRise) return subsets;
  const bool coherence =
      std::any_of(problem.units.begin(), problem.units.end(), [](const Unit& unit) { return !unit.coherence.empty(); });
  return allocator.reads == AllocatorReads::kCoherence && coherence && options.mode != "rank" ? subsets : 0;
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
  const auto& subsets = problem.replicates;
  const std::size_t repetitions = Repetitions(allocator, problem, options, draws.size());
  if (repetitions == 0) return {};
  std::vector<double> confidence(problem.units.size(), 0.0);
  for (std::size_t r = 0; r < repetitions; ++r) {
    AllocationProblem repeated = OnSubset(problem, subsets.empty() ? problem.loss_rise : subsets[r % subsets.size()]);
    if (!draws.empty()) Apply(draws[r % draws.size()], repeated);
    const Allocation again = Allocate(repeated, options, ++seed);
    for (std::size_t u = 0; u < confidence.size(); ++u) confidence[u] += again.bits[u] == answer.bits[u] ? 1.0 : 0.0;
  }
  for (double& share : confidence) share /= static_cast<double>(repetitions);
  return confidence;
}

}  // namespace bitplan
