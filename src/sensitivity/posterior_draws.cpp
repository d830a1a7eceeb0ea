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
constexpr double kMostRatio = 16.0;  // of what few images find to be many times as large or small

using Rows = std::vector<std::vector<double>>;

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
    weight.add_(sigma * torch::randn(sigma.sizes(), generator), scale);
  }
  return drawn;
}

// Information and table on a share of the images that the seed chooses.
AllocationProblem MeasuredOnShare(const SensitivityInputs& inputs, const Network& network, PosteriorOptions options,
                                  std::uint64_t seed) {
  options.estimator = "laplace";
  options.samples = std::max(options.batch, options.samples / kShare);
  const Posterior posterior = EstimatePosterior(network, inputs.train, inputs.normalizer, options, seed, SilentSink());
  SensitivityInputs share{.network = network,
                          .posterior = &posterior,
                          .train = inputs.train,
                          .normalizer = inputs.normalizer,
                          .quantizer = inputs.quantizer,
                          .options = inputs.options,
                          .widths = inputs.widths,
                          .seed = seed,
                          .evidence = inputs.evidence};
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

// drawn - base, and how far `base` lies from the mean of all bases, shrunk to what an estimate on all images has.
std::vector<double> Moved(const std::vector<double>& drawn, const std::vector<double>& base, const Rows& bases) {
  const auto count = static_cast<double>(bases.size());
  const double shrunk = count > 1.0 ? std::sqrt(count / (count - 1.0) / kShare) : 0.0;
  std::vector<double> moved(base.size());
  for (std::size_t i = 0; i < base.size(); ++i) {
    double mean = 0.0;
    for (const auto& other : bases) mean += other[i] / count;
    moved[i] = drawn[i] - base[i] + shrunk * (base[i] - mean);
  }
  return moved;
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

  const auto of_all = [&](std::size_t unit, const auto& member) {
    Rows rows;
    for (const AllocationProblem& base : bases) rows.push_back(base.units[unit].*member);
    return rows;
  };
  std::vector<PosteriorDraw> result(bases.size());
  for (std::size_t u = 0; u < inputs.network.layers.size(); ++u) {
    const Rows scores = of_all(u, &Unit::score_percentiles), sigmas = of_all(u, &Unit::log_sigma_percentiles);
    for (std::size_t d = 0; d < bases.size(); ++d) {
      const Unit &unit = drawn[d].units[u], &base = bases[d].units[u];
      result[d].rise.push_back(Ratio(drawn[d].loss_rise[u], bases[d].loss_rise[u]));
      result[d].coherence.push_back(Ratio(unit.coherence, base.coherence));
      result[d].score.push_back(Moved(unit.score_percentiles, base.score_percentiles, scores));
      result[d].log_sigma.push_back(Moved(unit.log_sigma_percentiles, base.log_sigma_percentiles, sigmas));
    }
  }
  return result;
}

}  // namespace bitplan
