// Diagonal Laplace approximation: mu = the trained weights, 1/sigma_i^2 = N F_i + 1/s^2.
//
// F is the diagonal Fisher information of one sample. Every minibatch gives one gradient g of a random sketch of its
// outputs with E[g g'] = sum_n F_n (FisherSketch in batches.h), so one forward and one backward pass per minibatch
// suffice:
//   F_i ~ (1 / samples) sum over minibatches g_i^2.
// Unbiased for any batch size; a smaller batch has the smaller variance. Labels sampled from the predictive
// distribution would do the same with more noise: a confident network draws few that say anything. Source: Martens,
// "New insights and perspectives on the natural gradient method", 2020; MacKay, 1992.
#pragma once

#include "bitplan/posterior/posterior.h"

namespace bitplan {

[[nodiscard]] Posterior EstimateLaplace(const Network& network, const Dataset& train, const Normalizer& normalizer,
                                        const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress);

// s_l: the option when it is set, else the root mean square of the layer's weights (1 for an all-zero layer).
[[nodiscard]] double PriorSigma(const torch::Tensor& weight, const PosteriorOptions& options);

}  // namespace bitplan
