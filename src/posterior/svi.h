// Stochastic variational inference in weight space: maximise the evidence lower bound
//   E_q[log p(D | w)] - KL(q || prior),   q(w) = N(mu, diag sigma^2),  sigma = softplus(rho),
// by Adam with the reparameterization trick, w = mu + sigma * eps, its step falling to zero along a cosine. Started
// from `laplace`; mu is held at the trained weights unless options.free_mean is set. The weight slots of the module
// take the sampled, differentiable tensors, so any model works without special layers. Source: Blundell et al., "Weight
// uncertainty in neural networks", 2015.
#pragma once

#include "bitplan/posterior/posterior.h"

namespace bitplan {

[[nodiscard]] Posterior EstimateSvi(const Network& network, const Dataset& train, const Normalizer& normalizer,
                                    const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress);

}  // namespace bitplan
