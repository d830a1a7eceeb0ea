// Learned rounding: codes and scales of a quantized network move along the gradient of what the whole network answers,
// on unlabelled training images.
//
// Compensated rounding looks at one layer at a time. Here the loss is the divergence KL(p_float || p_quantized) of the
// predictions, whose curvature is the Fisher information: the metric that widths were chosen by, with all layers and
// all their joint effects in it. Every weight has a latent w in levels, which begins at its code and moves towards the
// float weight by at most 0.3 of a level; the network sees round(w), clamped to the grid, and the gradient passes as if
// it were w (straight-through; Esser et al. 2020, "Learned step size quantization", for the scales). Scales move by a
// factor, so none changes its sign. Biases, and what norms multiply with and add, move too: they are float anyway.
// Widths, grids and bytes stay as they are. Ranges of rounded activations stay too (ptq/refine_ranges.h). Running
// statistics stay those of the correction before.
#pragma once

#include <cstdint>

#include "bitplan/core/correction.h"
#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"

namespace bitplan {

// Changes `applied`, a corrected network, in place. `images`: training images, of which an eighth are held out; of
// their labels only which positions count is read (likelihoods/likelihood.h). options.learned_steps minibatches of
// `batch` images. The same seed gives the same network. Error(kData) when the divergence is not finite.
LearnedRounding LearnRounding(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                              const Dataset& images, const Normalizer& normalizer, int batch, std::uint64_t seed,
                              ProgressSink& progress);

}  // namespace bitplan
