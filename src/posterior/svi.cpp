#include "posterior/svi.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/optim/adam.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "posterior/batches.h"
#include "posterior/finite.h"
#include "posterior/laplace.h"

namespace bitplan {
namespace {

// softplus^-1, stable for small and large sigma.
torch::Tensor InverseSoftplus(const torch::Tensor& sigma) { return sigma + torch::log(-torch::expm1(-sigma)); }

}  // namespace

Posterior EstimateSvi(const Network& network, const Dataset& train, const Normalizer& normalizer,
                      const PosteriorOptions& options, std::uint64_t seed, ProgressSink& progress) {
  Posterior posterior = EstimateLaplace(network, train, normalizer, options, seed, progress);
  posterior.estimator = "svi";
  torch::jit::Module module = CloneModule(network.module);
  for (const torch::Tensor& parameter : module.parameters()) parameter.set_requires_grad(false);

  // A step in rho is a relative change of sigma, a step in `shifts` a change of the mean in prior standard deviations.
  std::vector<torch::Tensor> shifts, rhos, learned;
  for (const LayerPosterior& layer : posterior.layers) {
    shifts.push_back(torch::zeros_like(layer.mean).set_requires_grad(options.free_mean));
    rhos.push_back(InverseSoftplus(layer.sigma).set_requires_grad(true));
    learned.push_back(rhos.back());
    if (options.free_mean) learned.push_back(shifts.back());
  }
  torch::optim::Adam optimizer(learned, torch::optim::AdamOptions(options.learning_rate));
  auto generator = at::detail::createCPUGenerator(StreamSeed(seed, "posterior/svi/noise"));
  const auto n = static_cast<double>(train.size());
  const auto samples = std::min<std::int64_t>(options.samples, train.size());
  const std::int64_t steps = options.epochs * ((samples + options.batch - 1) / options.batch);
  std::int64_t step = 0;

  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    RandomStream draws(seed, "posterior/svi/epoch/" + std::to_string(epoch));
    const torch::Tensor index = DrawSamples(train, options.samples, draws);
    progress.Begin("posterior svi epoch " + std::to_string(epoch + 1) + "/" + std::to_string(options.epochs),
                   index.size(0), "images");
    double bound = 0.0;
    for (std::int64_t begin = 0; begin < index.size(0); begin += options.batch) {
      ThrowIfInterrupted();
      const torch::Tensor rows = index.slice(0, begin, std::min<std::int64_t>(begin + options.batch, index.size(0)));
      const double pace = 0.5 * (1.0 + std::cos(std::acos(-1.0) * static_cast<double>(step++) / steps));
      for (auto& group : optimizer.param_groups()) group.options().set_lr(pace * options.learning_rate);
      optimizer.zero_grad();
      torch::Tensor divergence = torch::zeros({});
      for (std::size_t l = 0; l < rhos.size(); ++l) {
        const double s = posterior.layers[l].prior_sigma;
        const torch::Tensor sigma = torch::softplus(rhos[l]);
        const torch::Tensor noise = torch::randn(sigma.sizes(), generator);
        const torch::Tensor mean = posterior.layers[l].mean + s * shifts[l];
        SetTensor(module, network.layers[l].parameter, mean + sigma * noise);
        divergence =
            divergence + ((sigma.square() + mean.square()) / (2.0 * s * s) - torch::log(sigma / s) - 0.5).sum();
      }
      const torch::Tensor logits = RunForward(module, normalizer.Apply(train.images.index_select(0, rows)));
      const torch::Tensor nll = train.Task().Loss(logits, train.labels.index_select(0, rows));
      const torch::Tensor loss = nll + divergence / n;  // minus the bound, nats per sample
      if (!std::isfinite(nll.item<double>())) {
        RefuseLoss(network.module, train, rows, normalizer);  // unless it is the drawn weights
      }
      loss.backward();
      optimizer.step();
      bound -= loss.item<double>() * static_cast<double>(rows.size(0));
      progress.Advance(rows.size(0));
    }
    if (!std::isfinite(bound)) {
      throw Error(ErrorKind::kData, "posterior svi: the bound is not finite; lower posterior.learning_rate");
    }
    progress.End("bound " + std::to_string(bound / static_cast<double>(index.size(0))) + " nats per sample");
  }
  const torch::NoGradGuard no_grad;
  for (std::size_t l = 0; l < rhos.size(); ++l) {
    posterior.layers[l].mean.add_(shifts[l].detach(), posterior.layers[l].prior_sigma);
    posterior.layers[l].sigma = torch::softplus(rhos[l]).detach().clone();
  }
  return posterior;
}

}  // namespace bitplan
