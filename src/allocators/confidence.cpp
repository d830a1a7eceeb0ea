#include <algorithm>

#include "bitplan/allocators/allocator.h"

namespace bitplan {
namespace {

// The table of one replicate. Coherence is a unit's rise over the sum for single weights, so it moves along.
AllocationProblem Replicate(const AllocationProblem& problem, const std::vector<std::vector<double>>& loss_rise) {
  AllocationProblem replicate{problem.units, problem.widths, loss_rise, {}};
  for (std::size_t u = 0; u < replicate.units.size(); ++u) {
    std::vector<double>& coherence = replicate.units[u].coherence;
    for (std::size_t w = 0; w < coherence.size(); ++w) {
      const double rise = problem.loss_rise[u][w];
      if (rise > 0.0 && loss_rise[u][w] > 0.0) coherence[w] *= loss_rise[u][w] / rise;
    }
  }
  return replicate;
}

bool Varies(const Allocator& allocator, const AllocationProblem& problem, const AllocateOptions& options) {
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

std::vector<double> WidthConfidence(const AllocationProblem& problem, const AllocateOptions& options,
                                    std::uint64_t seed, const Allocation& answer) {
  const Allocator& allocator = FindAllocator(options.allocator);
  if (allocator.needs_oracle) {
    return answer.width_probabilities.empty() ? std::vector<double>{} : StatedProbabilities(options, answer);
  }
  if (problem.replicates.empty() || !Varies(allocator, problem, options)) return {};
  std::vector<double> confidence(problem.units.size(), 0.0);
  for (const auto& loss_rise : problem.replicates) {
    const Allocation again = Allocate(Replicate(problem, loss_rise), options, ++seed);
    for (std::size_t u = 0; u < confidence.size(); ++u) confidence[u] += again.bits[u] == answer.bits[u] ? 1.0 : 0.0;
  }
  for (double& share : confidence) share /= static_cast<double>(problem.replicates.size());
  return confidence;
}

}  // namespace bitplan
