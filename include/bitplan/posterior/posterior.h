// A mean-field Gaussian posterior over the weights of the quantizable layers: q(w) = N(mu, diag sigma^2), prior
// N(0, s_l^2) per layer.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"

namespace bitplan {

struct LayerPosterior {
  std::string layer;         // name in the network
  torch::Tensor mean;        // float32, shape of the weight
  torch::Tensor sigma;       // float32, same shape, > 0
  double prior_sigma = 0.0;  // s_l
};

struct Posterior {
  std::string estimator;               // laplace, svi
  std::int64_t data_size = 0;          // N, the training images that the posterior speaks of
  std::vector<LayerPosterior> layers;  // order of Network::layers

  // Likelihood information of one sample, Lambda_i = max(0, 1/sigma_i^2 - 1/s^2) / N, nats; shape of the weight. What
  // the data said about a weight, without the prior's word. The estimate is never negative, so where an `svi` sigma
  // scatters about the prior's, its mean is a little too high.
  [[nodiscard]] torch::Tensor Information(std::size_t layer) const;
  // SHA-256 over names and values.
  [[nodiscard]] std::string Hash() const;
};

struct PosteriorEstimator {
  const char* name;
  const char* description;
  Posterior (*estimate)(const Network& network, const Dataset& train, const Normalizer& normalizer,
                        const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress);
};

[[nodiscard]] const std::vector<PosteriorEstimator>& PosteriorEstimators();
[[nodiscard]] const PosteriorEstimator& FindPosteriorEstimator(const std::string& name);  // Error(kUsage)

[[nodiscard]] Posterior EstimatePosterior(const Network& network, const Dataset& train, const Normalizer& normalizer,
                                          const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress);

void SavePosterior(const Posterior& posterior, const std::filesystem::path& file);  // atomic
[[nodiscard]] Posterior LoadPosterior(const std::filesystem::path& file);           // Error(kNotFound), Error(kData)

}  // namespace bitplan
