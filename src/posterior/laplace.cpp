#include "posterior/laplace.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "bitplan/core/interrupt.h"
#include "posterior/batches.h"
#include "posterior/finite.h"

namespace bitplan {

namespace {

constexpr double kLeastPrior = 1e-15;  // of weights; one over its square still is a float32

}  // namespace

double PriorSigma(const torch::Tensor& weight, const PosteriorOptions& options) {
  if (options.prior_sigma > 0.0) return options.prior_sigma;
  const double rms = weight.detach().to(torch::kFloat64).square().mean().sqrt().item<double>();
  return rms > kLeastPrior ? rms : 1.0;
}

Posterior EstimateLaplace(const Network& network, const Dataset& train, const Normalizer& normalizer,
                          const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress) {
  const GradientScope scope(network);
  std::vector<torch::Tensor> squares;
  for (const torch::Tensor& weight : scope.weights()) squares.push_back(torch::zeros_like(weight));

  RandomStream draws(seed, "posterior/samples");
  RandomStream signs(seed, "posterior/signs");
  const torch::Tensor index = DrawSamples(train, options.samples, draws);
  const std::int64_t samples = index.size(0);
  progress.Begin("posterior laplace", samples, "images");
  for (std::int64_t begin = 0; begin < samples; begin += options.batch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min<std::int64_t>(begin + options.batch, samples));
    const auto gradients_of = [&](const torch::Tensor& some, RandomStream& stream) {
      return GradientsOf(FisherSketch(network.module, train, some, normalizer, stream), scope.weights());
    };
    const auto gradients = gradients_of(rows, signs);
    if (!AreFinite(gradients)) {
      RefuseImage(train, rows, "the gradient", [&](const torch::Tensor& row) {
        RandomStream alone(seed, "posterior/alone");
        return AreFinite(gradients_of(row, alone));
      });
    }
    for (std::size_t l = 0; l < squares.size(); ++l) squares[l].addcmul_(gradients[l], gradients[l]);
    progress.Advance(rows.size(0));
  }
  progress.End("");

  const torch::NoGradGuard no_grad;
  Posterior posterior{"laplace", train.size(), {}};
  for (std::size_t l = 0; l < squares.size(); ++l) {
    const torch::Tensor weight = scope.weights()[l].detach();
    const double prior = PriorSigma(weight, options);
    const double scale = static_cast<double>(train.size()) / static_cast<double>(samples);
    posterior.layers.push_back(
        {network.layers[l].name, weight.clone(), squares[l].mul_(scale).add_(1.0 / (prior * prior)).rsqrt_(), prior});
  }
  return posterior;
}

}  // namespace bitplan
