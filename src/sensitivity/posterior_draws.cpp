#include "bitplan/sensitivity/posterior_draws.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"

namespace bitplan {
namespace {

constexpr int kShare = 8;            // of the images that posterior and table are measured on
constexpr double kMostRise = 0.01;   // nats a sample that a draw is expected to lose
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

// Images of the whole table. 0: it looks at none.
int TableSamples(const SensitivityOptions& options) {
  const int most = FindSensitivityMetric(options.metric).most_samples;
  return most > 0 ? std::min(options.samples, most) : options.samples;
}

int ShareOf(int samples) { return samples > 0 ? std::max(1, samples / kShare) : 0; }

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
  share.options.samples = ShareOf(TableSamples(inputs.options));
  return MeasureSensitivity(share, SilentSink());
}

using Rows = std::vector<std::vector<double>>;

// What all layers have in common moves no plan within a budget, and would drown the rest: the mean is taken out. Then
// nothing counts as more than `most`.
void Centre(Rows& rows, double most) {
  double sum = 0.0, count = 0.0;
  for (const auto& row : rows) {
    sum = std::accumulate(row.begin(), row.end(), sum);
    count += static_cast<double>(row.size());
  }
  for (auto& row : rows) {
    for (double& value : row) value = std::clamp(value - sum / count, -most, most);
  }
}

// log(rise / other), 0 where one of them is none.
Rows LogRatios(const Rows& rise, const Rows& other) {
  Rows ratios;
  for (std::size_t u = 0; u < other.size(); ++u) {
    auto& row = ratios.emplace_back();
    for (std::size_t w = 0; w < other[u].size(); ++w) {
      row.push_back(rise[u][w] > 0.0 && other[u][w] > 0.0 ? std::log(rise[u][w] / other[u][w]) : 0.0);
    }
  }
  return ratios;
}

void Add(Rows& sum, const Rows& rows, double factor) {
  for (std::size_t u = 0; u < rows.size(); ++u) {
    for (std::size_t w = 0; w < rows[u].size(); ++w) sum[u][w] += factor * rows[u][w];
  }
}

// `count` estimates on a share of the images scatter about their mean; the factor that brings this to what an estimate
// on all images scatters about the truth, which has `share` of the variance. 0 for one estimate.
double Shrinkage(double count, double share) { return count > 1.0 ? std::sqrt(count / (count - 1.0) * share) : 0.0; }

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

std::vector<PosteriorDraw> MeasurePosteriorDraws(const SensitivityInputs& inputs, const AllocationProblem& table,
                                                 const PosteriorOptions& posterior, int draws, ProgressSink& progress) {
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

  const auto share_of = [images = static_cast<double>(inputs.train.size())](int part, int whole) {
    return whole > 0 ? std::min<double>(part, images) / std::min<double>(whole, images) : 0.0;
  };
  const double shrunk = Shrinkage(draws, share_of(ShareOf(posterior), posterior.samples));
  std::vector<PosteriorDraw> result(bases.size() * bases.size());
  const auto move = [&](std::vector<double> Unit::*percentiles, Rows PosteriorDraw::*shifts) {
    Rows means;
    for (std::size_t u = 0; u < inputs.network.layers.size(); ++u) means.push_back(Mean(bases, u, percentiles));
    for (std::size_t r = 0; r < result.size(); ++r) {
      const std::size_t d = r % bases.size(), seed = r / bases.size();
      Rows& rows = result[r].*shifts;
      for (std::size_t u = 0; u < means.size(); ++u) {
        const auto &now = drawn[d].units[u].*percentiles, &before = bases[d].units[u].*percentiles,
                   &other = bases[seed].units[u].*percentiles;
        auto& row = rows.emplace_back();
        for (std::size_t i = 0; i < now.size(); ++i) {
          row.push_back(now[i] - before[i] + shrunk * (other[i] - means[u][i]));
        }
      }
      Centre(rows, 0.5 * std::log2(kMostRatio));
    }
  };
  move(&Unit::score_percentiles, &PosteriorDraw::score);
  move(&Unit::log_sigma_percentiles, &PosteriorDraw::log_sigma);
  const int samples = TableSamples(inputs.options);
  const double rise_shrunk = table.replicates.empty() ? Shrinkage(draws, share_of(ShareOf(samples), samples)) : 0.0;
  std::vector<Rows> scatter(bases.size(), Rows(bases[0].loss_rise.size(), std::vector<double>(inputs.widths.size())));
  for (std::size_t s = 0; s < bases.size(); ++s) {
    for (const AllocationProblem& other : bases) {
      Add(scatter[s], LogRatios(bases[s].loss_rise, other.loss_rise), rise_shrunk / static_cast<double>(draws));
    }
  }
  for (std::size_t r = 0; r < result.size(); ++r) {
    const std::size_t d = r % bases.size(), seed = r / bases.size();
    result[r].rise = LogRatios(drawn[d].loss_rise, bases[d].loss_rise);
    Add(result[r].rise, scatter[seed], 1.0);
    Centre(result[r].rise, std::log(kMostRatio));
    for (auto& row : result[r].rise) {
      for (double& value : row) value = std::exp(value);
    }
  }
  return result;
}

}  // namespace bitplan
