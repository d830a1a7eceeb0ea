// Diagonal Laplace approximation: mu = the trained weights, 1/sigma_i^2 = N F_i + 1/s^2.
//
// F is the diagonal Fisher information of one sample. Labels are sampled from the model's own predictive distribution,
// so E[g] = 0 and gradients of different samples are uncorrelated; hence the squared gradient of the *summed* minibatch
// loss has the expectation sum_n E[g_n^2], and one forward and one backward pass per minibatch suffice:
//   F_i ~ (1 / samples) sum over minibatches (d/dw_i sum_n -log p(y_n | x_n))^2,   y_n ~ p(. | x_n).
// Unbiased for any batch size; a smaller batch has the smaller variance.
// Source: Martens, "New insights and perspectives on the natural gradient method", 2020; MacKay, 1992.
#pragma once

#include "bitplan/posterior/posterior.h"

namespace bitplan {

[[nodiscard]] Posterior EstimateLaplace(const Network& network, const Dataset& train, const Normalizer& normalizer,
                                        const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress);

// s_l: the option when it is set, else the root mean square of the layer's weights (1 for an all-zero layer).
[[nodiscard]] double PriorSigma(const torch::Tensor& weight, const PosteriorOptions& options);

}  // namespace bitplan
