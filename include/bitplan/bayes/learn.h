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

struct LearningSchedule {
  int epochs = 1;
  double learning_rate = 0.001;  // peak of a one-cycle schedule
  // Of LearnBound: the divergence's weight rises to 1 over the first quarter of the steps, for a network that knows
  // nothing yet; batch norms and dropout work as in training. Otherwise as when the network is used.
  bool warm_up = false, training_mode = false;
  // Of LearnReference: labels have their whole weight however small the divergence is. For the control, a network with
  // nothing to follow, so that it is taught what networks of few bits are.
  bool always_teach = false;
};

// Maximizes the evidence lower bound E_q[log p(D|w)] - KL(q || prior) by stochastic gradient, one draw of the weights a
// minibatch, by adam. Returns the loss of every epoch, minus the bound once the divergence has its weight, nats per
// sample. Error(kData) when it stops being finite: names the image where it is one.
std::vector<double> LearnBound(VariationalNetwork& network, const Dataset& train, const Normalizer& normalizer,
                               const BayesOptions& options, const LearningSchedule& schedule, std::uint64_t seed,
                               ProgressSink& progress);

// Training images in groups that are uncertain alike to the reference: by how much of it is aleatoric, and apart those
// that occur several times, with several labels. At equal aleatoric uncertainty the reference knows the two kinds of
// images differently well.
struct UncertaintyGroups {
  torch::Tensor of_row;  // int64 [rows], 0 .. count - 1
  std::int64_t count = 0;
  torch::Tensor once;  // float32 [count]: 1 for a group of images that occur once, 0 for the others
};
[[nodiscard]] UncertaintyGroups GroupByUncertainty(const StoredNetwork& reference, const Dataset& data,
                                                   const Normalizer& normalizer, int draws, std::uint64_t seed,
                                                   ProgressSink& progress);

// Moves a quantized network to the reference, draw by draw: both meet the same noise, and the loss is the mean over
// images and draws of KL(p_t || q_t), p_t the reference's answer to draw t, and 0.4 times the negative log likelihood
// of the labels, less where the divergence is below 0.02 nats: a network that follows has nothing to learn. A network
// that cannot follow every draw hedges: its single answers become flatter and agree more, which is more aleatoric and
// less epistemic uncertainty than the reference has. So both are held where the reference has them: the mean of either
// over a group of `uncertainty` is a constraint with a multiplier of its own, in units of the group's divergence (0.1
// nats an image at most), moved by the logarithm of the ratio to the reference. Where labels teach, the epistemic
// uncertainty of images with one label is held 40 % higher: what they teach makes a network surer of other images than
// of these (what is left: bayes/calibrate.h). Half of a minibatch is distorted a little, so that labels teach more than
// these images, and held in two groups of their own, those with one label and those with several. Blends of two images
// each, shapes and rearranged images (data/augment.h), a twelfth as many of each as the minibatch has and with 0.12 of
// its weight each, are followed too, as groups of their own: nothing else says what to do where no training image is.
// Two draws a minibatch give the epistemic part of a pair, compared with the reference's on the same pair.
// `uncertainty` null: the divergence of one draw alone, without labels. Returns the loss of every epoch, multipliers
// included.
std::vector<double> LearnReference(VariationalNetwork& network, const StoredNetwork& reference,
                                   const UncertaintyGroups* uncertainty, const Dataset& train,
                                   const Normalizer& normalizer, const BayesOptions& options,
                                   const LearningSchedule& schedule, std::uint64_t seed, ProgressSink& progress);

}  // namespace bitplan
