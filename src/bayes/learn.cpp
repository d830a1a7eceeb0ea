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
constexpr double kGroupEdges[] = {0.1, 0.5};  // nats of aleatoric uncertainty: clear, doubtful and ambiguous images

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

torch::Tensor Entropy(const torch::Tensor& probabilities) {
  return -torch::xlogy(probabilities, probabilities.clamp_min(1e-12)).sum(1);
}

// Holds a mean at its reference value: a multiplier that rises while the mean is too high and falls while it is too low,
// in the logarithm of their ratio, and a share of that ratio at once.
class Holder {
 public:
  // `value`, `wanted`: sums over the same images of a minibatch. The charge to add to the loss.
  torch::Tensor Charge(const torch::Tensor& value, const torch::Tensor& wanted) {
    value_ = kMemory * value_ + (1.0 - kMemory) * value.item<double>();
    wanted_ = kMemory * wanted_ + (1.0 - kMemory) * wanted.item<double>();
    if (!(wanted_ > 0.0) || !(value_ > 0.0)) return torch::zeros({});
    const double ratio = std::clamp(std::log(value_ / wanted_), -1.0, 1.0);
    multiplier_ = std::clamp(multiplier_ + kAscent * ratio, -kMost, kMost);
    return (multiplier_ + kShare * ratio) * (value / wanted_);
  }

 private:
  static constexpr double kMemory = 0.99, kAscent = 0.0001, kShare = 0.01, kMost = 0.05;
  double value_ = 0.0, wanted_ = 0.0, multiplier_ = 0.0;
};

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

ReferenceUncertainty MeasureReference(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                                      int draws, std::uint64_t seed, ProgressSink& progress) {
  constexpr std::int64_t kBatch = 512;
  const torch::NoGradGuard no_grad;
  torch::jit::Module module = CloneModule(reference.network.module);
  ReferenceUncertainty result{torch::zeros({data.size()}), torch::zeros({data.size()})};
  progress.Begin("uncertainty of the float network", draws * data.size(), "images");
  const auto answers = [&](int t) {
    const auto weights = reference.Draw(seed, t);
    for (std::size_t l = 0; l < weights.size(); ++l) {
      SetTensor(module, reference.network.layers[l].parameter, weights[l]);
    }
    std::vector<torch::Tensor> parts;
    for (std::int64_t begin = 0; begin < data.size(); begin += kBatch) {
      ThrowIfInterrupted();
      const torch::Tensor images = data.images.slice(0, begin, std::min(begin + kBatch, data.size()));
      parts.push_back(module.forward({normalizer.Apply(images)}).toTensor().softmax(1));
      progress.Advance(images.size(0));
    }
    return torch::cat(parts);
  };
  for (int t = 0; t + 1 < draws; t += 2) {
    const torch::Tensor a = answers(t), b = answers(t + 1);
    const torch::Tensor aleatoric = (Entropy(a) + Entropy(b)) / 2.0;
    result.aleatoric += aleatoric * (2.0 / draws);
    result.pair_epistemic += (Entropy((a + b) / 2.0) - aleatoric).clamp_min_(0.0) * (2.0 / draws);
  }
  progress.End("");
  return result;
}

std::vector<double> LearnReference(VariationalNetwork& network, const StoredNetwork& reference,
                                   const ReferenceUncertainty* held, const Dataset& train,
                                   const Normalizer& normalizer, const BayesOptions& options, int epochs,
                                   double learning_rate, std::uint64_t seed, ProgressSink& progress) {
  torch::jit::Module module = CloneModule(reference.network.module);
  Noise means, sigmas;
  for (std::size_t l = 0; l < reference.layers.size(); ++l) {
    means.push_back(reference.layers[l].Mean(reference.network.layers[l].output_dim));
    sigmas.push_back(reference.layers[l].Sigma());
  }
  const auto expected = [&](const torch::Tensor& images, const Noise& noise) {
    const torch::NoGradGuard no_grad;
    for (std::size_t l = 0; l < means.size(); ++l) {
      SetTensor(module, reference.network.layers[l].parameter, means[l] + sigmas[l] * noise[l]);
    }
    return module.forward({images}).toTensor().log_softmax(1);
  };
  const auto answer = [&](const torch::Tensor& images, const Noise& noise) {
    network.SetWeights(noise);
    return network.Forward(images).log_softmax(1);
  };
  std::vector<Holder> aleatoric(std::size(kGroupEdges) + 1), epistemic(std::size(kGroupEdges) + 1);
  const auto loss = [&](const Minibatch& batch) {
    const torch::Tensor p = expected(batch.images, batch.noise), log_q = answer(batch.images, batch.noise);
    const torch::Tensor divergence = (p.exp() * (p - log_q)).sum(1).mean();
    if (held == nullptr) return divergence;
    const torch::Tensor other_p = expected(batch.images, batch.other_noise);
    const torch::Tensor log_other = answer(batch.images, batch.other_noise);
    const torch::Tensor a = log_q.exp(), b = log_other.exp();
    const torch::Tensor single = (Entropy(a) + Entropy(b)) / 2.0;
    const torch::Tensor pair = Entropy((a + b) / 2.0) - single;
    const torch::Tensor want_single = held->aleatoric.index_select(0, batch.rows);
    const torch::Tensor want_pair = held->pair_epistemic.index_select(0, batch.rows);
    torch::Tensor sum = (divergence + (other_p.exp() * (other_p - log_other)).sum(1).mean()) / 2.0;
    const torch::Tensor group = torch::bucketize(want_single, torch::tensor(std::vector<float>(
                                                                  std::begin(kGroupEdges), std::end(kGroupEdges))));
    for (std::size_t g = 0; g < aleatoric.size(); ++g) {
      const torch::Tensor member = group.eq(static_cast<std::int64_t>(g)).to(torch::kFloat32);
      sum = sum + aleatoric[g].Charge((single * member).sum(), (want_single * member).sum()) +
            epistemic[g].Charge((pair * member).sum(), (want_pair * member).sum());
    }
    return sum;
  };
  return Learn(network, train, normalizer, options, epochs, learning_rate, seed, "reference", progress, loss);
}

}  // namespace bitplan
