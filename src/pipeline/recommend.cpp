#include "pipeline/recommend.h"

#include <numeric>

namespace bitplan::pipeline {
namespace {

double MeanNll(const ShipCandidate& candidate) {
  double sum = 0.0, count = 0.0;
  for (const auto* nll : candidate.nll) {
    sum = std::accumulate(nll->begin(), nll->end(), sum);
    count += static_cast<double>(nll->size());
  }
  return sum / count;
}

// The smallest of the candidates that pass.
template <typename Passes>
std::optional<std::size_t> Smallest(const std::vector<ShipCandidate>& candidates, Passes passes) {
  std::optional<std::size_t> smallest;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (!passes(candidates[i])) continue;
    if (smallest) {
      const auto &mine = candidates[i], &other = candidates[*smallest];
      if (mine.bytes > other.bytes || (mine.bytes == other.bytes && MeanNll(mine) >= MeanNll(other))) continue;
    }
    smallest = i;
  }
  return smallest;
}

}  // namespace

std::optional<std::size_t> SmallestAsGoodAsBest(const std::vector<ShipCandidate>& candidates, SeedSamples samples,
                                                int resamples, const RandomStream& stream) {
  const ShipCandidate* best = nullptr;
  for (const auto& candidate : candidates) {
    if (best == nullptr || MeanNll(candidate) < MeanNll(*best)) best = &candidate;
  }
  return Smallest(candidates, [&](const ShipCandidate& candidate) {
    return PairedMean(candidate.nll, best->nll, samples).ci_low <= 0.0 &&
           ComparePaired(best->correct, candidate.correct, samples, resamples, stream).ci_low <= 0.0;
  });
}

std::optional<std::size_t> SmallestWithin(const std::vector<ShipCandidate>& candidates, const SeedOutcomes& reference,
                                          SeedSamples samples, double tolerance, int resamples,
                                          const RandomStream& stream) {
  return Smallest(candidates, [&](const ShipCandidate& candidate) {
    return ComparePaired(reference, candidate.correct, samples, resamples, stream).ci_high <= tolerance;
  });
}

}  // namespace bitplan::pipeline
