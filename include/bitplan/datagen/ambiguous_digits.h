// Digits that are ambiguous on purpose, each with several plausible labels: the second half of Dirty-MNIST, made from
// MNIST by the published procedure (J. Mukhoti, A. Kirsch, J. van Amersfoort, P. Torr, Y. Gal, "Deep deterministic
// uncertainty: a new simple baseline", 2023). An input can be unclear (aleatoric) without being strange (epistemic):
// such data tell the two apart.
//
//   1. A fully connected variational autoencoder and an ensemble of classifiers learn the training images.
//   2. Candidates are decoded convex mixtures (weights Dirichlet(1)) of the codes of 2..4 images of different classes.
//      Their pixels are brought to mean and standard deviation of the training images and their contrast is raised:
//      u' = clamp(1.2 u - 0.15, 0, 1), rounded to bytes.
//   3. Kept are those on which the networks agree (mutual information of class and network at most 0.05 nats) that the
//      class is open (entropy of the mean prediction in [0.05, 3) nats).
//   4. Quotas over bins of that entropy, in proportion to count^0.2, spread the chosen images over the ambiguities.
//   5. The labels of an image are draws from the mean prediction.
//
// Autoencoder and networks see training images only. The training half mixes training images and the test half mixes
// test images, so that nothing of the test split reaches training. The same seed, data, options and machine (with the
// same number of threads) give the same bytes.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

struct AmbiguousDigitsOptions {
  std::int64_t train_images = 6000, test_images = 6000;  // > 0
  int labels = 10;                                       // for every image, > 0

  // Autoencoder: pixels - hidden[0] - hidden[1] - code and back, ReLU, Bernoulli likelihood, Adam.
  std::vector<std::int64_t> hidden = {512, 256};
  std::int64_t code = 32;
  int autoencoder_epochs = 15, autoencoder_batch = 128;
  double autoencoder_learning_rate = 0.001;

  // Ensemble.
  std::string architecture = "lenet5-caffe";
  int networks = 5;  // >= 2, or there is no disagreement
  TrainOptions training = {.epochs = 3, .optimizer = "adam", .learning_rate = 0.002, .batch = 128, .augment = {}};

  // Candidates of one half: drawn until `pool` times as many are kept as images are wanted, or `most_candidates` are
  // drawn. A larger pool fills the quotas better and takes longer.
  int fewest_parents = 2, most_parents = 4;  // 2 <= fewest <= most <= classes
  int group = 64;                            // mixtures of the same images, > 0
  double pool = 5.0;                         // >= 1
  std::int64_t most_candidates = 1'000'000;
  double contrast = 1.2, brightness = -0.15;  // u' = contrast u + brightness

  // What is kept, nats.
  double most_information = 0.05;  // mutual information
  double lowest_entropy = 0.05, entropy_bound = 3.0;

  // Quotas: `bins` bins of equal width over [bins_low, bins_high]; what lies outside belongs to the nearest one.
  int bins = 50;
  double bins_low = 0.05, bins_high = 1.6;
  double exponent = 0.2;  // 0: the same number from every bin; 1: as the candidates are

  // Error(kUsage) naming field, value and bound.
  void Validate() const;
};

struct AmbiguousHalf {
  torch::Tensor images;              // uint8 [N, 1, H, W], in random order
  torch::Tensor labels;              // int64 [N, L]
  torch::Tensor predictive;          // float32 [N, classes], mean prediction of the ensemble
  torch::Tensor entropy;             // float64 [N], of the mean prediction, nats
  torch::Tensor information;         // float64 [N], mutual information, nats
  std::int64_t drawn = 0, kept = 0;  // candidates
};

struct AmbiguousDigits {
  AmbiguousHalf train, test;
  double autoencoder_loss = 0.0;     // of the last epoch, nats per image
  std::vector<double> network_loss;  // [networks], of the last epoch, nats per image
};

// `train`, `test`: uint8 [n, 1, H, W] of a size that the architecture takes. Error(kUsage) for options out of range;
// Error(kData) for data of fewer classes than parents, and when `most_candidates` leave fewer than the wanted images.
[[nodiscard]] AmbiguousDigits MakeAmbiguousDigits(const Dataset& train, const Dataset& test,
                                                  const AmbiguousDigitsOptions& options, std::uint64_t seed,
                                                  ProgressSink& progress);

// Shares `total` out over bins in proportion to counts^exponent: no bin gets more than its count, what a full bin
// cannot take goes to the others in the same proportion, and the shares are whole numbers with exactly that total
// (largest remainders; the first of equal ones). Error(kUsage) when the counts together are less than `total`.
[[nodiscard]] std::vector<std::int64_t> BinQuotas(const std::vector<std::int64_t>& counts, std::int64_t total,
                                                  double exponent);

}  // namespace bitplan
