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
// table again, and where `scores` are wanted (a metric that needs a posterior wants them) the information of the
// weights (by Laplace, whatever estimator made the posterior), each time with another seed on an eighth as many images.
// The network itself is measured on the same images with the same seed: what a draw changes is the difference, in which
// the choice of images cancels. Both have their scales fitted to the weights: fits to outputs would take longer than
// all the rest. Errors that act together (coherence) are left as they are; few images do not tell them from chance.
// Besides, every estimate of the network itself scatters with its images and its seed; brought to the size of the whole
// estimate, that scatter is a change of scores too, and of the rises of a `table` (the one that `inputs` give on all
// images) without replicates. The answer holds every network with every seed, draws x draws entries (one draw: no
// scatter); without `scores` its rows of scores are empty.
//
// Tempered: a mean-field draw of all weights at once is far worse than the network, d / 2N nats for d weights that
// N images determine (3 for ResNet-20 and 45,000 images). Deviations are scaled down to an expected loss rise of 0.01
// nats a sample where it is higher. Weights that are zero stay zero. What changes for all layers alike moves no plan
// and is left out; of the rest no change counts as more than a factor of 16 in a rise, or the 2 bits that this is in a
// score.
[[nodiscard]] std::vector<PosteriorDraw> MeasurePosteriorDraws(const SensitivityInputs& inputs,
                                                               const AllocationProblem& table,
                                                               const PosteriorOptions& posterior, int draws,
                                                               bool scores, ProgressSink& progress);

}  // namespace bitplan
