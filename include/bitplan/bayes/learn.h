// Training of a variational network: the evidence lower bound, or what a reference network does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/bayes/variational_network.h"
#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

// Maximizes the evidence lower bound E_q[log p(D|w)] - KL(q || prior) by stochastic gradient, one draw of the weights a
// minibatch; the divergence's weight rises to 1 over the first quarter of the steps. One-cycle learning rate, adam.
// Returns minus the bound of every epoch, nats per sample. Error(kData) when it stops being finite.
std::vector<double> LearnBound(VariationalNetwork& network, const Dataset& train, const Normalizer& normalizer,
                               const BayesOptions& options, int epochs, double learning_rate, std::uint64_t seed,
                               ProgressSink& progress);

// Moves a quantized network to the reference, draw by draw: both meet the same noise, and the loss is the mean over
// images and draws of KL(p_t || q_t), p_t the reference's answer to draw t. Since the answers to single draws are
// matched and not only their mean, what the draws share and where they differ is kept: accuracy, aleatoric and
// epistemic uncertainty alike. No labels. Returns the loss of every epoch, nats.
std::vector<double> LearnReference(VariationalNetwork& network, const StoredNetwork& reference, const Dataset& train,
                                   const Normalizer& normalizer, const BayesOptions& options, int epochs,
                                   double learning_rate, std::uint64_t seed, ProgressSink& progress);

}  // namespace bitplan
