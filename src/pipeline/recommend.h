// Which of many measured plans a careful person would ship.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/random.h"
#include "bitplan/core/statistics.h"

namespace bitplan::pipeline {

// One plan on the images by which plans are chosen: for every calibration seed one entry per image, all plans in the
// same order.
struct ShipCandidate {
  std::int64_t bytes = 0;
  SeedOutcomes correct;
  SeedLosses nll;  // nats
};

// Of the plans that are not shown to be worse than the one of least NLL (the paired 95 % intervals of NLL and of
// accuracy hold 0) the one of fewest bytes, then of least NLL, then the first. Nothing when there are no candidates.
// NLL decides, because it tells plans apart on far fewer images than accuracy does.
[[nodiscard]] std::optional<std::size_t> SmallestAsGoodAsBest(const std::vector<ShipCandidate>& candidates,
                                                              SeedSamples samples, int resamples,
                                                              const RandomStream& stream);

// The plan of fewest bytes, then of least NLL, among those that lose at most `tolerance` of accuracy (a share) against
// `reference` at the upper end of the paired 95 % interval; nothing when none is that sure.
[[nodiscard]] std::optional<std::size_t> SmallestWithin(const std::vector<ShipCandidate>& candidates,
                                                        const SeedOutcomes& reference, SeedSamples samples,
                                                        double tolerance, int resamples, const RandomStream& stream);

}  // namespace bitplan::pipeline
