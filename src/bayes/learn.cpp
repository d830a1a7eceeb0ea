#include "bitplan/bayes/learn.h"

#include <fmt/format.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/data/augment.h"
#include "bitplan/training/schedule.h"

namespace bitplan {
namespace {

constexpr double kWarmUp = 0.25;  // share of the steps over which the divergence gets its weight
constexpr std::int64_t kStepsBetweenChecks = 50;

class Learning {
 public:
  explicit Learning(VariationalNetwork& network) : network_(network) { network_.SetLearning(true); }
  ~Learning() { network_.SetLearning(false); }
  Learning(const Learning&) = delete;
  Learning& operator=(const Learning&) = delete;

 private:
  VariationalNetwork& network_;
};

using Noise = std::vector<torch::Tensor>;
// Images are normalized; `progress` 0..1 through all steps.
using Loss =
    std::function<torch::Tensor(const torch::Tensor& images, const torch::Tensor& labels, const Noise&, double progress)>;

std::vector<double> Learn(VariationalNetwork& network, const Dataset& train, const Normalizer& normalizer,
                          const BayesOptions& options, int epochs, double learning_rate, std::uint64_t seed,
                          const std::string& what, ProgressSink& progress, const Loss& loss_of) {
  const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
  const Learning learning(network);
  torch::optim::Adam optimizer(network.Parameters(), torch::optim::AdamOptions(learning_rate));
  const std::int64_t steps = (train.size() + options.batch - 1) / options.batch;
  std::vector<double> losses;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const std::string name = "bayes/" + what + "/" + std::to_string(epoch);
    auto generator = at::detail::createCPUGenerator(StreamSeed(seed, name + "/noise"));
    const torch::Tensor order = torch::tensor(RandomStream(seed, name).Permutation(train.size()));
    progress.Begin(fmt::format("{} epoch {}/{}", what, epoch + 1, epochs), train.size(), "images");
    torch::Tensor sum = torch::zeros({}, torch::kFloat64);
    for (std::int64_t step = 0; step < steps; ++step) {
      ThrowIfInterrupted();
      const std::int64_t begin = step * options.batch, end = std::min<std::int64_t>(begin + options.batch, train.size());
      const std::int64_t at = epoch * steps + step;
      for (auto& group : optimizer.param_groups()) {
        group.options().set_lr(OneCycleRate(at, epochs * steps, learning_rate));
      }
      const torch::Tensor rows = order.slice(0, begin, end);
      Noise noise;
      for (const Layer& layer : network.network().layers) noise.push_back(torch::randn(layer.shape, generator));
      optimizer.zero_grad();
      network.SetWeights(noise);
      const torch::Tensor loss =
          loss_of(normalizer.Apply(train.images.index_select(0, rows)), train.labels.index_select(0, rows), noise,
                  static_cast<double>(at) / static_cast<double>(epochs * steps));
      loss.backward();
      optimizer.step();
      sum += loss.detach() * (end - begin);
      if (((step + 1) % kStepsBetweenChecks == 0 || step + 1 == steps) && !std::isfinite(sum.item<double>())) {
        throw Error(ErrorKind::kData, fmt::format("{}: the loss is not finite by step {} of epoch {}; lower the learning "
                                                  "rate (now {})",
                                                  what, step + 1, epoch + 1, learning_rate));
      }
      progress.Advance(end - begin);
    }
    losses.push_back(sum.item<double>() / static_cast<double>(train.size()));
    progress.End(fmt::format("loss {:.4f}", losses.back()));
  }
  return losses;
}

}  // namespace

std::vector<double> LearnBound(VariationalNetwork& network, const Dataset& train, const Normalizer& normalizer,
                               const BayesOptions& options, int epochs, double learning_rate, std::uint64_t seed,
                               ProgressSink& progress) {
  const auto n = static_cast<double>(train.size());
  const auto loss = [&](const torch::Tensor& images, const torch::Tensor& labels, const Noise&, double done) {
    const torch::Tensor nll = torch::nll_loss(network.Forward(images).log_softmax(1), labels);
    return nll + network.Divergence(options.prior_sigma) * (std::min(1.0, done / kWarmUp) / n);
  };
  return Learn(network, train, normalizer, options, epochs, learning_rate, seed, "bound", progress, loss);
}

std::vector<double> LearnReference(VariationalNetwork& network, const StoredNetwork& reference, const Dataset& train,
                                   const Normalizer& normalizer, const BayesOptions& options, int epochs,
                                   double learning_rate, std::uint64_t seed, ProgressSink& progress) {
  torch::jit::Module module = CloneModule(reference.network.module);
  Noise means, sigmas;
  for (std::size_t l = 0; l < reference.layers.size(); ++l) {
    means.push_back(reference.layers[l].Mean(reference.network.layers[l].output_dim));
    sigmas.push_back(reference.layers[l].Sigma());
  }
  const auto loss = [&](const torch::Tensor& images, const torch::Tensor&, const Noise& noise, double) {
    torch::Tensor target;
    {
      const torch::NoGradGuard no_grad;
      for (std::size_t l = 0; l < means.size(); ++l) {
        SetTensor(module, reference.network.layers[l].parameter, means[l] + sigmas[l] * noise[l]);
      }
      target = module.forward({images}).toTensor().log_softmax(1);
    }
    const torch::Tensor log_q = network.Forward(images).log_softmax(1);
    return (target.exp() * (target - log_q)).sum(1).mean();
  };
  return Learn(network, train, normalizer, options, epochs, learning_rate, seed, "reference", progress, loss);
}

}  // namespace bitplan
