#include "bitplan/sensitivity/posterior_draws.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

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

// Images of an estimate on a share of `whole`, at least `least` of them.
std::int64_t ShareOf(std::int64_t whole, std::int64_t least) {
  return std::min(whole, std::max(least, whole / kShare));
}

// What the table and the information are estimated on: `samples` of the training images, or all of them.
std::int64_t Images(const SensitivityInputs& inputs, int samples) {
  return std::min<std::int64_t>(samples, inputs.train.size());
}

QuantizerOptions ByWeights(QuantizerOptions options) {
  options.range = "mse";
  return options;
}

// Table, and where `scores` are wanted the information, on a share of the images that the seed chooses. `fits`: of this
// network by its weights, or null.
AllocationProblem MeasuredOnShare(const SensitivityInputs& inputs, const Network& network, PosteriorOptions options,
                                  bool scores, std::uint64_t seed, const LayerFits* fits) {
  options.estimator = "laplace";
  options.samples = static_cast<int>(ShareOf(Images(inputs, options.samples), options.batch));
  std::optional<Posterior> posterior;
  if (scores) {
    posterior = EstimatePosterior(network, inputs.train, inputs.normalizer, options, seed, SilentSink());
  }
  const QuantizerOptions quantizer = ByWeights(inputs.quantizer);
  SensitivityInputs share{.network = network,
                          .posterior = posterior ? &*posterior : nullptr,
                          .train = inputs.train,
                          .normalizer = inputs.normalizer,
                          .quantizer = quantizer,
                          .options = inputs.options,
                          .widths = inputs.widths,
                          .seed = seed,
                          .fits = fits};
  share.options.coherence = false;
  share.options.samples = static_cast<int>(ShareOf(Images(inputs, SamplesOf(inputs.options)), 1));
  return MeasureSensitivity(share, SilentSink());
}

using Rows = std::vector<std::vector<double>>;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double KnownOrZero(double value) { return std::isnan(value) ? 0.0 : value; }

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

Rows MeanOf(const std::vector<Rows>& estimates) {
  Rows mean = estimates.front();
  for (std::size_t u = 0; u < mean.size(); ++u) {
    for (std::size_t i = 0; i < mean[u].size(); ++i) {
      double sum = 0.0, known = 0.0;
      for (const Rows& rows : estimates) {
        if (std::isnan(rows[u][i])) continue;
        sum += rows[u][i];
        known += 1.0;
      }
      mean[u][i] = known > 0.0 ? sum / known : kUnknown;
    }
  }
  return mean;
}

// What every drawn network (the same seed for `drawn` and `bases`) with every seed changes, centred; r: network r mod
// n, seed r / n of n. `scatter`: the factor on the scatter of the bases. Unknown is no change.
std::vector<Rows> Changes(const std::vector<Rows>& bases, const std::vector<Rows>& drawn, double scatter, double most) {
  const std::size_t n = bases.size();
  const Rows mean = MeanOf(bases);
  std::vector<Rows> changes(n * n, mean);
  for (std::size_t r = 0; r < changes.size(); ++r) {
    const Rows &now = drawn[r % n], &before = bases[r % n], &other = bases[r / n];
    for (std::size_t u = 0; u < mean.size(); ++u) {
      for (std::size_t i = 0; i < mean[u].size(); ++i) {
        changes[r][u][i] = KnownOrZero(now[u][i] - before[u][i]) + scatter * KnownOrZero(other[u][i] - mean[u][i]);
      }
    }
    Centre(changes[r], most);
  }
  return changes;
}

std::vector<Rows> LogRises(const std::vector<AllocationProblem>& tables) {
  std::vector<Rows> logs;
  for (const AllocationProblem& table : tables) {
    Rows& rows = logs.emplace_back(table.loss_rise);
    for (auto& row : rows) {
      for (double& rise : row) rise = rise > 0.0 ? std::log(rise) : kUnknown;
    }
  }
  return logs;
}

std::vector<Rows> Percentiles(const std::vector<AllocationProblem>& tables, std::vector<double> Unit::*percentiles) {
  std::vector<Rows> rows(tables.size());
  for (std::size_t t = 0; t < tables.size(); ++t) {
    for (const Unit& unit : tables[t].units) rows[t].push_back(unit.*percentiles);
  }
  return rows;
}

// `count` estimates on a share of the images scatter about their mean; the factor that brings this to what an estimate
// on all images scatters about the truth, which has `share` of the variance. 0 for one estimate.
double Shrinkage(double count, double share) { return count > 1.0 ? std::sqrt(count / (count - 1.0) * share) : 0.0; }

}  // namespace

std::vector<PosteriorDraw> MeasurePosteriorDraws(const SensitivityInputs& inputs, const AllocationProblem& table,
                                                 const PosteriorOptions& posterior, int draws, bool scores,
                                                 ProgressSink& progress) {
  const double rise = ExpectedRise(*inputs.posterior);
  const double scale = rise > kMostRise ? std::sqrt(kMostRise / rise) : 1.0;
  const bool information = FindSensitivityMetric(inputs.options.metric).needs_posterior;
  const LayerFits fits = FitLayers(inputs.network, inputs.widths, ByWeights(inputs.quantizer), nullptr);
  std::vector<AllocationProblem> bases, drawn;
  progress.Begin("posterior draws", draws, "draws");
  for (int d = 0; d < draws; ++d) {
    ThrowIfInterrupted();
    const std::uint64_t seed = StreamSeed(inputs.seed, "sensitivity/draw/" + std::to_string(d));
    const Network other = Drawn(inputs.network, *inputs.posterior, scale, seed);
    bases.push_back(MeasuredOnShare(inputs, inputs.network, posterior, scores, seed, &fits));
    drawn.push_back(MeasuredOnShare(inputs, other, posterior, scores, seed, nullptr));
    progress.Advance(1);
  }
  progress.End("");

  const auto shrunk = [&](std::int64_t whole, std::int64_t least) {
    return Shrinkage(
        draws, static_cast<double>(ShareOf(whole, least)) / static_cast<double>(std::max<std::int64_t>(whole, 1)));
  };
  const double of_information = shrunk(Images(inputs, posterior.samples), posterior.batch);
  const double of_table = information ? of_information : shrunk(Images(inputs, SamplesOf(inputs.options)), 1);
  const auto rises =
      Changes(LogRises(bases), LogRises(drawn), table.replicates.empty() ? of_table : 0.0, std::log(kMostRatio));
  const auto moved = [&](std::vector<double> Unit::*percentiles) {
    return Changes(Percentiles(bases, percentiles), Percentiles(drawn, percentiles), of_information,
                   0.5 * std::log2(kMostRatio));
  };
  const auto score = moved(&Unit::score_percentiles), log_sigma = moved(&Unit::log_sigma_percentiles);
  std::vector<PosteriorDraw> result;
  for (std::size_t r = 0; r < rises.size(); ++r) {
    PosteriorDraw& draw = result.emplace_back(PosteriorDraw{rises[r], score[r], log_sigma[r]});
    for (auto& row : draw.rise) {
      for (double& value : row) value = std::exp(value);
    }
  }
  return result;
}

}  // namespace bitplan
