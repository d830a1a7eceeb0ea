#include "bitplan/sensitivity/posterior_draws.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/sensitivity/displacements.h"

namespace bitplan {
namespace {

constexpr int kShare = 8;            // of the images that posterior and table are measured on
constexpr double kMostRise = 0.05;   // nats a sample that a draw is expected to lose
constexpr double kMostRatio = 16.0;  // a rise is found to be so many times as large or small, at most

// Half the information times the variance of every weight, nats a sample.
double ExpectedRise(const Posterior& posterior) {
  double rise = 0.0;
  for (std::size_t l = 0; l < posterior.layers.size(); ++l) {
    rise += 0.5 * posterior.Information(l).mul(posterior.layers[l].sigma.square()).sum(torch::kFloat64).item<double>();
  }
  return rise;
}

Network Drawn(const Network& network, const Posterior& posterior, double scale, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  Network drawn = network;
  drawn.module = CloneModule(network.module);
  auto generator = at::detail::createCPUGenerator(seed);
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    const torch::Tensor& sigma = posterior.layers[l].sigma;
    const torch::Tensor weight = GetTensor(drawn.module, network.layers[l].parameter);
    weight.add_(sigma * torch::randn(sigma.sizes(), generator) * weight.ne(0.0), scale);
  }
  return drawn;
}

// Images of the estimate of the information on a share.
int ShareOf(const PosteriorOptions& options) {
  return std::min(options.samples, std::max(options.batch, options.samples / kShare));
}

// Information and table on a share of the images that the seed chooses.
AllocationProblem MeasuredOnShare(const SensitivityInputs& inputs, const Network& network, PosteriorOptions options,
                                  std::uint64_t seed) {
  options.estimator = "laplace";
  options.samples = ShareOf(options);
  const Posterior posterior = EstimatePosterior(network, inputs.train, inputs.normalizer, options, seed, SilentSink());
  QuantizerOptions quantizer = inputs.quantizer;
  quantizer.range = "mse";
  SensitivityInputs share{.network = network,
                          .posterior = &posterior,
                          .train = inputs.train,
                          .normalizer = inputs.normalizer,
                          .quantizer = quantizer,
                          .options = inputs.options,
                          .widths = inputs.widths,
                          .seed = seed};
  share.options.coherence = false;
  int& samples = share.options.samples;
  if (FindSensitivityMetric(share.options.metric).keeps_displacements) samples = std::min(samples, kMostDisplaced);
  if (samples > 0) samples = std::max(1, samples / kShare);
  return MeasureSensitivity(share, SilentSink());
}

std::vector<double> Ratio(const std::vector<double>& drawn, const std::vector<double>& base) {
  std::vector<double> ratio(base.size(), 1.0);
  for (std::size_t i = 0; i < base.size(); ++i) {
    if (base[i] > 0.0) ratio[i] = std::clamp(drawn[i] / base[i], 1.0 / kMostRatio, kMostRatio);
  }
  return ratio;
}

// drawn - base, and how far `seed` lies from the mean of all seeds, shrunk to what the whole estimate has; bits.
std::vector<double> Moved(const std::vector<double>& drawn, const std::vector<double>& base,
                          const std::vector<double>& seed, const std::vector<double>& mean, double shrunk) {
  const double most = 0.5 * std::log2(kMostRatio);
  std::vector<double> moved(base.size());
  for (std::size_t i = 0; i < base.size(); ++i) {
    moved[i] = std::clamp(drawn[i] - base[i] + shrunk * (seed[i] - mean[i]), -most, most);
  }
  return moved;
}

std::vector<double> Mean(const std::vector<AllocationProblem>& problems, std::size_t unit,
                         const std::vector<double> Unit::*percentiles) {
  std::vector<double> mean(kPercentiles);
  for (const AllocationProblem& problem : problems) {
    const std::vector<double>& values = problem.units[unit].*percentiles;
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += values[i] / static_cast<double>(problems.size());
  }
  return mean;
}

}  // namespace

std::vector<PosteriorDraw> MeasurePosteriorDraws(const SensitivityInputs& inputs, const PosteriorOptions& posterior,
                                                 int draws, ProgressSink& progress) {
  const double rise = ExpectedRise(*inputs.posterior);
  const double scale = rise > kMostRise ? std::sqrt(kMostRise / rise) : 1.0;
  std::vector<AllocationProblem> bases, drawn;
  progress.Begin("posterior draws", draws, "draws");
  for (int d = 0; d < draws; ++d) {
    ThrowIfInterrupted();
    const std::uint64_t seed = StreamSeed(inputs.seed, "sensitivity/draw/" + std::to_string(d));
    bases.push_back(MeasuredOnShare(inputs, inputs.network, posterior, seed));
    drawn.push_back(MeasuredOnShare(inputs, Drawn(inputs.network, *inputs.posterior, scale, seed), posterior, seed));
    progress.Advance(1);
  }
  progress.End("");

  // An estimate on a share s of the images has 1 / s of the variance of the whole one.
  const double count = draws, images = static_cast<double>(inputs.train.size());
  const double share = std::min<double>(ShareOf(posterior), images) / std::min<double>(posterior.samples, images);
  const double shrunk = draws > 1 ? std::sqrt(count / (count - 1.0) * share) : 0.0;
  std::vector<PosteriorDraw> result(bases.size() * bases.size());
  for (std::size_t u = 0; u < inputs.network.layers.size(); ++u) {
    const auto scores = Mean(bases, u, &Unit::score_percentiles), sigmas = Mean(bases, u, &Unit::log_sigma_percentiles);
    for (std::size_t r = 0; r < result.size(); ++r) {
      const std::size_t d = r % bases.size();
      const Unit &unit = drawn[d].units[u], &base = bases[d].units[u], &seed = bases[r / bases.size()].units[u];
      result[r].rise.push_back(Ratio(drawn[d].loss_rise[u], bases[d].loss_rise[u]));
      result[r].score.push_back(
          Moved(unit.score_percentiles, base.score_percentiles, seed.score_percentiles, scores, shrunk));
      result[r].log_sigma.push_back(
          Moved(unit.log_sigma_percentiles, base.log_sigma_percentiles, seed.log_sigma_percentiles, sigmas, shrunk));
    }
  }
  return result;
}

}  // namespace bitplan
