// Training of a variational network: the evidence lower bound, or what a reference network does.
#pragma once

#include <torch/types.h>

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

// What a network answers, over its draws, to every image of a data set.
struct AnswerMoments {
  torch::Tensor predictive;  // float32 [N, classes], E_t p_t
  torch::Tensor entropy;     // float32 [N], E_t H[p_t], nats
};
[[nodiscard]] AnswerMoments MeasureAnswers(const StoredNetwork& reference, const Dataset& data,
                                           const Normalizer& normalizer, int draws, std::uint64_t seed,
                                           ProgressSink& progress);

// Moves a quantized network to the reference's predictive distribution and mean entropy, image by image: to its answer
// and to how much of it is aleatoric, and with both to how much is epistemic. Of every image
//   sum_c (p_c - q_c)^2 / (q_c + e) + (H - h)^2 / (h + e),   p and H of the network, q and h of the reference,
// p and H expectations over the draws. A square of an expectation is estimated without bias by the product of two
// independent draws; the square of one draw would also charge for the spread of the draws, and a network would learn to
// be less uncertain than the reference. No labels. Returns the loss of every epoch (it may be negative).
std::vector<double> LearnMoments(VariationalNetwork& network, const AnswerMoments& answers, const Dataset& train,
                                 const Normalizer& normalizer, const BayesOptions& options, int epochs,
                                 double learning_rate, std::uint64_t seed, ProgressSink& progress);

// Moves a quantized network to the reference, draw by draw: both meet the same noise, and the loss is the mean over
// images and draws of KL(p_t || q_t), p_t the reference's answer to draw t. Since the answers to single draws are
// matched and not only their mean, what the draws share and where they differ is kept: accuracy, aleatoric and
// epistemic uncertainty alike. No labels. Returns the loss of every epoch, nats.
std::vector<double> LearnReference(VariationalNetwork& network, const StoredNetwork& reference, const Dataset& train,
                                   const Normalizer& normalizer, const BayesOptions& options, int epochs,
                                   double learning_rate, std::uint64_t seed, ProgressSink& progress);

}  // namespace bitplan
