// What of a sensitivity table would be otherwise if training had found another network that the posterior holds
// possible.
#pragma once

#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/problem.h"
#include "bitplan/core/progress.h"
#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

// Draws the weights `draws` times from inputs.posterior (not null), about the weights of the network, and measures the
// information of the weights (by Laplace, whatever estimator made the posterior) and the table again, on an eighth of
// the images and with seeds of their own. The network itself is measured on the same images with the same seed, so that
// a draw is a difference in which the choice of images cancels; how far the scores scatter with images and seed is
// added, at the scale of the whole estimate. All draws together cost about as much as `draws` / 4 times posterior and
// table.
//
// Tempered: a mean-field draw of all weights at once is far worse than the network, d / 2N nats for d weights that
// N images determine (2.7 for ResNet-20). Deviations are scaled down to an expected loss rise of 0.05 nats a sample
// where it is higher.
[[nodiscard]] std::vector<PosteriorDraw> MeasurePosteriorDraws(const SensitivityInputs& inputs,
                                                               const PosteriorOptions& posterior, int draws,
                                                               ProgressSink& progress);

}  // namespace bitplan
