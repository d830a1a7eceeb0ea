#include "bitplan/bayes/calibrate.h"

#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace bitplan {
namespace {

constexpr double kAnswers = 160'000;         // that a mean over images and draws takes in, at least
constexpr double kFewest = 20, kMost = 200;  // draws of every image
constexpr double kLeast = 1e-6;              // nats; less is rounding
constexpr double kWholeKind = 100;           // images
constexpr double kMostFactor = 1.25;         // what needs more has other troubles
constexpr double kProbe = 1.05;              // factor that tells what a scale does
constexpr std::int64_t kTried = 64;          // images that tell where the logits come from

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

// A copy of the network whose module is its own.
StoredNetwork Copied(const StoredNetwork& stored) {
  StoredNetwork copy = stored;
  copy.network.module = CloneModule(stored.network.module);
  return copy;
}

// Nearly all logits double with the last layer: a drawn weight midway between two levels may take the other one.
bool LastLayerPutsOutLogits(const StoredNetwork& stored, const torch::Tensor& inputs) {
  constexpr double kNearlyAll = 0.95;
  StoredNetwork doubled = Copied(stored);
  ScaleOutput(doubled, 2.0);
  const torch::Tensor close =
      torch::isclose(Drawer(doubled).Logits(inputs, 1, 0), 2.0 * Drawer(stored).Logits(inputs, 1, 0), 1e-3, 1e-4);
  return close.to(torch::kFloat32).mean().item<double>() >= kNearlyAll;
}

double LogRatio(double value, double wanted) {
  return wanted < kLeast ? 0.0 : std::log(std::max(value, kLeast) / wanted);
}

using Drifts = std::vector<UncertaintyDrift>;

Drifts Slopes(const Drifts& now, const Drifts& probe) {
  Drifts slopes;
  for (std::size_t k = 0; k < now.size(); ++k) {
    slopes.push_back({(probe[k].aleatoric - now[k].aleatoric) / std::log(kProbe),
                      (probe[k].epistemic - now[k].epistemic) / std::log(kProbe)});
  }
  return slopes;
}

double Product(const Drifts& a, const Drifts& b, const std::vector<double>& weights) {
  double sum = 0.0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    sum += weights[k] * (a[k].aleatoric * b[k].aleatoric + a[k].epistemic * b[k].epistemic);
  }
  return sum;
}

std::string InPerCent(const Drifts& drifts) {
  std::string text;
  for (const auto& drift : drifts) {
    text +=
        fmt::format("{}{:+.1f}, {:+.1f} %", text.empty() ? "" : "; ", 100.0 * drift.aleatoric, 100.0 * drift.epistemic);
  }
  return text;
}

}  // namespace

UncertaintyTarget::UncertaintyTarget(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                                     std::uint64_t seed, ProgressSink& progress)
    : images_(Distinct(data)), inputs_(normalizer.Apply(images_.images)), seed_(seed) {
  draws_ = static_cast<int>(std::clamp(std::ceil(kAnswers / static_cast<double>(images_.size())), kFewest, kMost));
  const torch::Tensor repeated = images_.Repeated();
  for (const torch::Tensor& kind : {repeated.logical_not(), repeated}) {
    const auto count = static_cast<double>(kind.sum().item<std::int64_t>());
    if (count == 0.0) continue;
    kinds_.push_back(kind);
    weights_.push_back(std::min(1.0, count / kWholeKind));
  }
  wanted_ = Measure(reference, {}, progress).front();
}

std::vector<std::vector<UncertaintyTarget::Means>> UncertaintyTarget::Measure(const StoredNetwork& stored,
                                                                              const std::vector<double>& factors,
                                                                              ProgressSink& progress) const {
  Drawer drawer(stored, [this](std::int64_t input) { return InputName(input); });
  std::vector<UncertaintySum> sums(factors.size() + 1);
  progress.Begin("uncertainty on calibration images", draws_, "draws");
  for (int t = 0; t < draws_; ++t) {
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
  const auto& weights = target.weights();
  const auto scaled = [&](double sigmas, double logits) {
    StoredNetwork network = Copied(stored);
    for (StoredLayer& layer : network.layers) ScaleSigmas(layer, sigmas);
    if (logits != 1.0) ScaleOutput(network, logits);
    return network;
  };
  const bool both = LastLayerPutsOutLogits(stored, target.inputs().slice(0, 0, kTried));
  const auto measured = target.Drift(stored, {kProbe}, progress);
  const Drifts& now = measured[0];
  const Drifts of_sigmas = Slopes(now, target.Drift(scaled(kProbe, 1.0), {}, progress)[0]);
  const Drifts of_logits = both ? Slopes(now, measured[1]) : Drifts(now.size());
  Drifts asked = now;  // a step cannot do more
  for (auto& drift : asked) {
    drift = {std::clamp(drift.aleatoric, -1.0, 1.0), std::clamp(drift.epistemic, -1.0, 1.0)};
  }
  // |asked + of_sigmas * s + of_logits * l|^2 within a box: convex, so one variable at a time gets there.
  const double ss = Product(of_sigmas, of_sigmas, weights), sl = Product(of_sigmas, of_logits, weights),
               ll = Product(of_logits, of_logits, weights), s_asked = Product(of_sigmas, asked, weights),
               l_asked = Product(of_logits, asked, weights), most = std::log(kMostFactor);
  double s = 0.0, l = 0.0;
  for (int sweep = 0; sweep < 100; ++sweep) {
    if (ss > 0.0) s = std::clamp(-(s_asked + sl * l) / ss, -most, most);
    if (ll > 0.0) l = std::clamp(-(l_asked + sl * s) / ll, -most, most);
  }
  const UncertaintyScales scales = {std::exp(s), std::exp(l)};
  StoredNetwork calibrated = scaled(scales.sigmas, scales.logits);
  const Drifts left = target.Drift(calibrated, {}, progress)[0];
  progress.Begin("scales", 1, "networks");
  progress.End(fmt::format("sigmas x {:.3f}, logits x {:.3f}; {} -> {}", scales.sigmas, scales.logits, InPerCent(now),
                           InPerCent(left)));
  if (Product(left, left, weights) >= Product(now, now, weights)) return {};
  stored = std::move(calibrated);
  return scales;
}

}  // namespace bitplan
