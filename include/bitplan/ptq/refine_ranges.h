// Ranges of rounded activations, refined after the weights are rounded: one after the other is tried wider and
// narrower, and keeps what lowers the divergence KL(p_float || p_quantized) of the predictions on unlabelled training
// images. No gradient is needed. Codes, scales of weights, zero points and statistics stay.
#pragma once

#include <cstdint>

#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"

namespace bitplan {

struct RefinedRanges {
  std::int64_t held_out = 0;         // images that decided nothing but whether it is kept; 0: nothing was done
  double before = 0.0, after = 0.0;  // mean divergence there, nats
  std::size_t ranges = 0;            // of tensors
  bool kept = false;                 // false: it was no better there, and the network is as it was before
};

// Changes `applied`, a corrected network with rounded activations (ptq/activations.h), in place: so many sweeps over
// all ranges, each step judged by up to 512 of `images`; an eighth of them decide whether it is kept. `batch`: images
// that pass at once. Nothing is done without rounded activations. Error(kData) when the divergence is not finite.
RefinedRanges RefineRanges(const Network& network, AppliedPlan& applied, int sweeps, const Dataset& images,
                           const Normalizer& normalizer, int batch, std::uint64_t seed, ProgressSink& progress);

}  // namespace bitplan
