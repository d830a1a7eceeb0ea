#include "bitplan/bayes/calibrate.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bitplan {
namespace {

constexpr int kDraws = 100;           // of every image: fewer know a mean to some per cent only
constexpr double kMostFactor = 1.25;  // what needs more has other troubles

}  // namespace

EpistemicTarget::EpistemicTarget(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                                 std::uint64_t seed, ProgressSink& progress)
    : images_(Distinct(data)), normalizer_(normalizer), seed_(seed) {
  const torch::Tensor repeated = images_.Repeated();
  for (const torch::Tensor& kind : {repeated.logical_not(), repeated}) {
    if (kind.any().item<bool>()) kinds_.push_back(kind);
  }
  wanted_ = Means(reference, progress);
}

std::vector<double> EpistemicTarget::Means(const StoredNetwork& stored, ProgressSink& progress) const {
  const Uncertainty u =
      Predict(stored, images_.images, normalizer_, kDraws, seed_, progress, "uncertainty on calibration images");
  std::vector<double> means;
  for (const torch::Tensor& kind : kinds_) means.push_back(u.epistemic.masked_select(kind).mean().item<double>());
  return means;
}

std::vector<double> EpistemicTarget::Drift(const StoredNetwork& stored, ProgressSink& progress) const {
  const std::vector<double> means = Means(stored, progress);
  std::vector<double> drift;
  for (std::size_t k = 0; k < means.size(); ++k) {
    drift.push_back(means[k] > 0.0 && wanted_[k] > 0.0 ? std::log(means[k] / wanted_[k]) : 0.0);
  }
  return drift;
}

double CalibrateSigmas(StoredNetwork& stored, const EpistemicTarget& target, ProgressSink& progress) {
  const std::vector<double> drift = target.Drift(stored, progress);
  const double mean = std::accumulate(drift.begin(), drift.end(), 0.0) / static_cast<double>(drift.size());
  const double factor = std::clamp(std::exp(-mean / 2.0), 1.0 / kMostFactor, kMostFactor);
  for (StoredLayer& layer : stored.layers) {
    if (layer.sigma_bits == kFloatBits) {
      layer.sigma = layer.sigma * factor;
    } else if (layer.sigma_grid.scale == "log") {
      layer.sigma_grid.low += std::log(factor);
    } else {
      layer.sigma_grid.low *= factor;
      layer.sigma_grid.step *= factor;
    }
  }
  return factor;
}

}  // namespace bitplan
