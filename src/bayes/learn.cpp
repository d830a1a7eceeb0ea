#include "bitplan/bayes/learn.h"

#include <fmt/format.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "bitplan/bayes/predict.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/data/augment.h"
#include "bitplan/training/schedule.h"

namespace bitplan {
namespace {

constexpr double kWarmUp = 0.25;  // share of the steps over which the divergence gets its weight
constexpr std::int64_t kStepsBetweenChecks = 50;
constexpr double kLeastAnswer = 0.02;  // probability, and nats, below which errors are not counted relative to the answer

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
// A minibatch: rows of the data set, its normalized images, two independent draws of noise, and how far training is (0..1).
struct Minibatch {
  torch::Tensor rows, images;
  Noise noise, other_noise;
  double done;
};
using Loss = std::function<torch::Tensor(const Minibatch& batch)>;

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
      Minibatch batch{rows, normalizer.Apply(train.images.index_select(0, rows)), {}, {},
                      static_cast<double>(at) / static_cast<double>(epochs * steps)};
      for (const Layer& layer : network.network().layers) {
        batch.noise.push_back(torch::randn(layer.shape, generator));
        batch.other_noise.push_back(torch::randn(layer.shape, generator));
      }
      optimizer.zero_grad();
      const torch::Tensor loss = loss_of(batch);
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
  const auto loss = [&](const Minibatch& batch) {
    network.SetWeights(batch.noise);
    const torch::Tensor labels = train.labels.index_select(0, batch.rows);
    const torch::Tensor nll = torch::nll_loss(network.Forward(batch.images).log_softmax(1), labels);
    return nll + network.Divergence(options.prior_sigma) * (std::min(1.0, batch.done / kWarmUp) / n);
  };
  return Learn(network, train, normalizer, options, epochs, learning_rate, seed, "bound", progress, loss);
}

AnswerMoments MeasureAnswers(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                             int draws, std::uint64_t seed, ProgressSink& progress) {
  const Uncertainty answers = Predict(reference, data.images, normalizer, draws, seed, progress, "answers of the float network");
  return {answers.predictive, answers.aleatoric.to(torch::kFloat32)};
}

std::vector<double> LearnMoments(VariationalNetwork& network, const AnswerMoments& answers, const Dataset& train,
                                 const Normalizer& normalizer, const BayesOptions& options, int epochs,
                                 double learning_rate, std::uint64_t seed, ProgressSink& progress) {
  const auto loss = [&](const Minibatch& batch) {
    const torch::Tensor q = answers.predictive.index_select(0, batch.rows);
    const torch::Tensor h = answers.entropy.index_select(0, batch.rows);
    torch::Tensor of_answer[2], of_entropy[2];
    for (const int draw : {0, 1}) {
      network.SetWeights(draw == 0 ? batch.noise : batch.other_noise);
      const torch::Tensor log_p = network.Forward(batch.images).log_softmax(1);
      of_answer[draw] = log_p.exp() - q;
      of_entropy[draw] = -(log_p.exp() * log_p).sum(1) - h;
    }
    return ((of_answer[0] * of_answer[1]) / (q + kLeastAnswer)).sum(1).mean() +
           (of_entropy[0] * of_entropy[1] / (h + kLeastAnswer)).mean();
  };
  return Learn(network, train, normalizer, options, epochs, learning_rate, seed, "moments", progress, loss);
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
  const auto loss = [&](const Minibatch& batch) {
    torch::Tensor target;
    {
      const torch::NoGradGuard no_grad;
      for (std::size_t l = 0; l < means.size(); ++l) {
        SetTensor(module, reference.network.layers[l].parameter, means[l] + sigmas[l] * batch.noise[l]);
      }
      target = module.forward({batch.images}).toTensor().log_softmax(1);
    }
    network.SetWeights(batch.noise);
    const torch::Tensor log_q = network.Forward(batch.images).log_softmax(1);
    return (target.exp() * (target - log_q)).sum(1).mean();
  };
  return Learn(network, train, normalizer, options, epochs, learning_rate, seed, "reference", progress, loss);
}

}  // namespace bitplan
