#include "bitplan/bayes/calibrate.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

namespace bitplan {
namespace {

constexpr int kDraws = 25;            // of every image; each 128 of them meet draws of their own
constexpr double kMostFactor = 1.25;  // what needs more has other troubles
constexpr double kProbe = 1.05;       // factor on the logits that tells what they do

void Scale(torch::Tensor& tensor, double factor) {
  if (tensor.defined()) tensor = tensor * factor;
}

void ScaleSigmas(StoredLayer& layer, double factor) {
  if (layer.sigma_bits == kFloatBits) {
    Scale(layer.sigma, factor);
  } else if (layer.sigma_grid.scale == "log") {
    layer.sigma_grid.low += std::log(factor);
  } else {
    layer.sigma_grid.low *= factor;
    layer.sigma_grid.step *= factor;
  }
}

// Every weight that the last layer can draw, and its bias.
void ScaleOutput(StoredNetwork& stored, double factor) {
  const Layer& layer = stored.network.layers.back();
  StoredLayer& output = stored.layers.back();
  Scale(output.mean_grid.steps, factor);
  Scale(output.mean, factor);
  ScaleSigmas(output, factor);
  Scale(output.sample_grid.steps, factor);
  if (!layer.bias.empty()) {
    SetTensor(stored.network.module, layer.bias, GetTensor(stored.network.module, layer.bias) * factor);
  }
}

torch::Tensor LogitsOfNoise(const StoredNetwork& stored) {
  std::vector<std::int64_t> shape = stored.network.input_shape;
  shape.insert(shape.begin(), 2);
  auto generator = at::detail::createCPUGenerator(1);
  return Drawer(stored).Logits(torch::randn(shape, generator), 1, 0);
}

// A copy of the network whose module is its own.
StoredNetwork Copied(const StoredNetwork& stored) {
  StoredNetwork copy = stored;
  copy.network.module = CloneModule(stored.network.module);
  return copy;
}

bool LastLayerPutsOutLogits(const StoredNetwork& stored) {
  StoredNetwork doubled = Copied(stored);
  ScaleOutput(doubled, 2.0);
  return torch::allclose(LogitsOfNoise(doubled), 2.0 * LogitsOfNoise(stored), 1e-3, 1e-4);
}

double LogRatio(double value, double wanted) { return value > 0.0 && wanted > 0.0 ? std::log(value / wanted) : 0.0; }

}  // namespace

UncertaintyTarget::UncertaintyTarget(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                                     std::uint64_t seed, ProgressSink& progress)
    : images_(Distinct(data)), inputs_(normalizer.Apply(images_.images)), seed_(seed) {
  const torch::Tensor repeated = images_.Repeated();
  for (const torch::Tensor& kind : {repeated.logical_not(), repeated}) {
    if (kind.any().item<bool>()) kinds_.push_back(kind);
  }
  wanted_ = Measure(reference, {}, progress).front();
}

std::vector<std::vector<UncertaintyTarget::Means>> UncertaintyTarget::Measure(const StoredNetwork& stored,
                                                                              const std::vector<double>& factors,
                                                                              ProgressSink& progress) const {
  Drawer drawer(stored);
  std::vector<UncertaintySum> sums(factors.size() + 1);
  progress.Begin("uncertainty on calibration images", kDraws, "draws");
  for (int t = 0; t < kDraws; ++t) {
    const torch::Tensor logits = drawer.Logits(inputs_, seed_, t);
    sums.front().Add(logits);
    for (std::size_t f = 0; f < factors.size(); ++f) sums[f + 1].Add(logits * factors[f]);
    progress.Advance(1);
  }
  progress.End("");
  std::vector<std::vector<Means>> means;
  for (const UncertaintySum& sum : sums) {
    const Uncertainty u = sum.Take();
    auto& of_kinds = means.emplace_back();
    for (const torch::Tensor& kind : kinds_) {
      of_kinds.push_back({u.aleatoric.masked_select(kind).mean().item<double>(),
                          u.epistemic.masked_select(kind).mean().item<double>()});
    }
  }
  return means;
}

std::vector<std::vector<UncertaintyDrift>> UncertaintyTarget::Drift(const StoredNetwork& stored,
                                                                    const std::vector<double>& factors,
                                                                    ProgressSink& progress) const {
  std::vector<std::vector<UncertaintyDrift>> drifts;
  for (const auto& means : Measure(stored, factors, progress)) {
    auto& of_kinds = drifts.emplace_back();
    for (std::size_t k = 0; k < means.size(); ++k) {
      of_kinds.push_back(
          {LogRatio(means[k].aleatoric, wanted_[k].aleatoric), LogRatio(means[k].epistemic, wanted_[k].epistemic)});
    }
  }
  return drifts;
}

UncertaintyScales CalibrateUncertainty(StoredNetwork& stored, const UncertaintyTarget& target, ProgressSink& progress) {
  const StoredNetwork found = Copied(stored);
  const bool scales_logits = LastLayerPutsOutLogits(found);
  const double most = std::log(kMostFactor);
  double sigmas = 0.0, logits = 0.0;  // logarithms of the factors
  for (int step = 0; step < 2; ++step) {
    const auto drifts = target.Drift(stored, {kProbe}, progress);
    // Least squares: drift + d(drift)/d(log factors) * step = 0.
    double ss = 0.0, sl = 0.0, ll = 0.0, s = 0.0, l = 0.0;
    for (std::size_t k = 0; k < drifts[0].size(); ++k) {
      const UncertaintyDrift &now = drifts[0][k], &probe = drifts[1][k];
      const double of_sigmas[] = {0.0, 2.0};
      const double of_logits[] = {(probe.aleatoric - now.aleatoric) / std::log(kProbe),
                                  (probe.epistemic - now.epistemic) / std::log(kProbe)};
      const double drift[] = {now.aleatoric, now.epistemic};
      for (std::size_t u = 0; u < 2; ++u) {
        ss += of_sigmas[u] * of_sigmas[u];
        sl += of_sigmas[u] * of_logits[u];
        ll += of_logits[u] * of_logits[u];
        s -= of_sigmas[u] * drift[u];
        l -= of_logits[u] * drift[u];
      }
    }
    const double determinant = ss * ll - sl * sl;
    const bool both = scales_logits && determinant > 1e-6 * ss * ll;
    sigmas = std::clamp(sigmas + (both ? (s * ll - l * sl) / determinant : s / ss), -most, most);
    logits = std::clamp(logits + (both ? (ss * l - sl * s) / determinant : 0.0), -most, most);
    stored = Copied(found);
    for (StoredLayer& layer : stored.layers) ScaleSigmas(layer, std::exp(sigmas));
    if (scales_logits) ScaleOutput(stored, std::exp(logits));
  }
  return {std::exp(sigmas), std::exp(logits)};
}

}  // namespace bitplan
