#include "bitplan/bayes/learn.h"

#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/optim/adam.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "bitplan/bayes/predict.h"
#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/data/augment.h"
#include "bitplan/training/schedule.h"
#include "posterior/finite.h"

namespace bitplan {
namespace {

constexpr double kWarmUp = 0.25;  // share of the steps over which the divergence gets its weight
constexpr std::int64_t kStepsBetweenChecks = 50;
constexpr double kGroupEdges[] = {0.1, 0.5};  // nats of aleatoric uncertainty: clear, doubtful and ambiguous images
constexpr std::int64_t kLevels = std::size(kGroupEdges) + 1;
constexpr double kLabels = 0.4;     // weight of the labels beside the reference
constexpr double kFaithful = 0.02;  // nats of divergence an image below which the labels' weight shrinks with it
// Share by which the epistemic uncertainty of undistorted images with one label is held higher where labels teach: on
// images that are not trained on it ends lower.
constexpr double kPairAhead = 0.4;
// Blends, as many shapes and as many rearranged images: how many images of the minibatch there are for each of them,
// and the weight of each kind beside that of the minibatch.
constexpr std::int64_t kUnseenKinds = 3, kImagesPerUnseen = 12, kDistortedKinds = 2, kImagesPerDistorted = 2;
constexpr double kUnseen = 0.12;
constexpr double kFollowing = 0.1;  // nats of divergence an image beyond which holding uncertainty gets no stronger

class Learning {
 public:
  Learning(VariationalNetwork& network, bool training_mode) : network_(network) {
    network_.SetLearning(true, training_mode);
  }
  ~Learning() { network_.SetLearning(false); }
  Learning(const Learning&) = delete;
  Learning& operator=(const Learning&) = delete;

 private:
  VariationalNetwork& network_;
};

using Noise = std::vector<torch::Tensor>;
// A minibatch: rows of the data set, its normalized images, one or two draws of noise, and how far training is (0..1).
struct Minibatch {
  torch::Tensor rows, images;
  Noise noise, other_noise;
  double done;
};
using Loss = std::function<torch::Tensor(const Minibatch& batch)>;

std::vector<double> Learn(VariationalNetwork& network, const Dataset& train, const Normalizer& normalizer,
                          const BayesOptions& options, const LearningSchedule& schedule, std::uint64_t seed,
                          const std::string& what, bool pairs, ProgressSink& progress, const Loss& loss_of) {
  const int epochs = schedule.epochs;
  const double learning_rate = schedule.learning_rate;
  const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
  // The network before learning, as it is used: an image that it cannot take is bad.
  const torch::jit::Module first = network.Store().network.module;
  bool sound = true;  // every loss so far was finite
  const Learning learning(network, schedule.training_mode);
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
      const std::int64_t begin = step * options.batch,
                         end = std::min<std::int64_t>(begin + options.batch, train.size());
      const std::int64_t at = epoch * steps + step;
      for (auto& group : optimizer.param_groups()) {
        group.options().set_lr(OneCycleRate(at, epochs * steps, learning_rate));
      }
      const torch::Tensor rows = order.slice(0, begin, end);
      Minibatch batch{rows,
                      normalizer.Apply(train.images.index_select(0, rows)),
                      {},
                      {},
                      static_cast<double>(at) / static_cast<double>(epochs * steps)};
      for (const Layer& layer : network.network().layers) {
        batch.noise.push_back(torch::randn(layer.shape, generator));
        if (pairs) batch.other_noise.push_back(torch::randn(layer.shape, generator));
      }
      optimizer.zero_grad();
      const torch::Tensor loss = loss_of(batch);
      if (sound && !std::isfinite(loss.item<double>())) {
        sound = false;
        RefuseLoss(first, train, rows, normalizer);  // unless it is the network
      }
      loss.backward();
      optimizer.step();
      sum += loss.detach() * (end - begin);
      if (((step + 1) % kStepsBetweenChecks == 0 || step + 1 == steps) && !std::isfinite(sum.item<double>())) {
        throw Error(ErrorKind::kData,
                    fmt::format("{}: the loss is not finite by step {} of epoch {}; lower the learning "
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

// Nats of every row, with a gradient that stays finite at probability zero.
torch::Tensor EntropyAwayFromZero(const torch::Tensor& probabilities) {
  return -torch::xlogy(probabilities, probabilities.clamp_min(1e-12)).sum(1);
}

// KL(p || q) of every image.
torch::Tensor Divergence(const torch::Tensor& log_p, const torch::Tensor& log_q) {
  return RowDivergences(log_p, log_q);
}

// Of two answers to the same images: mean entropy, and what the entropy of their mean has more.
std::pair<torch::Tensor, torch::Tensor> PairUncertainty(const torch::Tensor& log_a, const torch::Tensor& log_b) {
  const torch::Tensor a = log_a.exp(), b = log_b.exp();
  const torch::Tensor single = (EntropyAwayFromZero(a) + EntropyAwayFromZero(b)) / 2.0;
  return {single, EntropyAwayFromZero((a + b) / 2.0) - single};
}

// Holds the means of groups of images at their reference values. Every group has a multiplier that rises while its mean
// is too high and falls while it is too low, in the logarithm of their ratio, and a share of that ratio at once. Its
// unit is the divergence that it works against: a network that follows closely is held gently. A mean that is too high
// is charged by its logarithm, so that one many times too high does not drown the answers.
class Holder {
 public:
  explicit Holder(std::int64_t groups)
      : value_(torch::zeros({groups})), wanted_(torch::zeros({groups})), multiplier_(torch::zeros({groups})) {}

  // float32 [groups] each: `value`, `wanted`: sums over the same images of a minibatch; `divergence`: about what the
  // group adds to the loss. The charge to add to it.
  torch::Tensor Charge(const torch::Tensor& value, const torch::Tensor& wanted, const torch::Tensor& divergence) {
    share_ += kFresh * (1.0 - share_);
    value_.mul_(1.0 - kFresh).add_(value.detach(), kFresh);
    wanted_.mul_(1.0 - kFresh).add_(wanted, kFresh);
    const torch::Tensor known = wanted_.gt(0.0).logical_and(value_.gt(0.0));
    const torch::Tensor ratio = torch::where(known, (value_ / wanted_).log().clamp(-1.0, 1.0), torch::zeros({}));
    multiplier_.add_(ratio, kAscent).clamp_(-kMost, kMost);
    const torch::Tensor weight =
        torch::where(known.logical_and(wanted.gt(0.0)),
                     (multiplier_ + kGain * ratio) * (share_ / wanted_.maximum(value_)), torch::zeros({}));
    return (divergence * weight * value).sum();
  }

 private:
  static constexpr double kFresh = 0.015;  // share of a minibatch in the averages: they reach 70 minibatches back
  static constexpr double kAscent = 0.03, kGain = 5.0, kMost = 18.0;
  torch::Tensor value_, wanted_, multiplier_;
  double share_ = 0.0;  // of the averages that is not their zero start
};

}  // namespace

std::vector<double> LearnBound(VariationalNetwork& network, const Dataset& train, const Normalizer& normalizer,
                               const BayesOptions& options, const LearningSchedule& schedule, std::uint64_t seed,
                               ProgressSink& progress) {
  const auto n = static_cast<double>(train.size());
  const auto loss = [&](const Minibatch& batch) {
    network.SetWeights(network.Round(), batch.noise);
    const torch::Tensor labels = train.labels.index_select(0, batch.rows);
    const torch::Tensor nll = torch::nll_loss(network.Forward(batch.images).log_softmax(1), labels);
    return nll + network.Divergence(options.prior_sigma) *
                     ((schedule.warm_up ? std::min(1.0, batch.done / kWarmUp) : 1.0) / n);
  };
  return Learn(network, train, normalizer, options, schedule, seed, "bound", false, progress, loss);
}

UncertaintyGroups GroupByUncertainty(const StoredNetwork& reference, const Dataset& data, const Normalizer& normalizer,
                                     int draws, std::uint64_t seed, ProgressSink& progress) {
  const DistinctImages distinct = Distinct(data);
  const Uncertainty u =
      Predict(reference, distinct, normalizer, draws, seed, progress, "uncertainty of the float network");
  const torch::Tensor edges = torch::tensor(std::vector<double>(std::begin(kGroupEdges), std::end(kGroupEdges)));
  const torch::Tensor level = torch::bucketize(u.aleatoric, edges);
  const torch::Tensor group = level * 2 + distinct.Repeated().to(torch::kInt64);
  return {group.index_select(0, distinct.of_row), kLevels * 2, torch::tensor({1.0F, 0.0F}).repeat({kLevels})};
}

std::vector<double> LearnReference(VariationalNetwork& network, const StoredNetwork& reference,
                                   const UncertaintyGroups* uncertainty, const Dataset& train,
                                   const Normalizer& normalizer, const BayesOptions& options,
                                   const LearningSchedule& schedule, std::uint64_t seed, ProgressSink& progress) {
  torch::jit::Module module = CloneModule(reference.network.module);
  std::vector<TensorSlot> slots;
  for (const Layer& layer : reference.network.layers) slots.emplace_back(module, layer.parameter);
  Noise means, sigmas;
  for (std::size_t l = 0; l < reference.layers.size(); ++l) {
    means.push_back(reference.layers[l].Mean(reference.network.layers[l].output_dim));
    sigmas.push_back(reference.layers[l].Sigma());
  }
  const auto expected = [&](const torch::Tensor& images, const Noise& noise) {
    const torch::NoGradGuard no_grad;
    for (std::size_t l = 0; l < means.size(); ++l) {
      slots[l].Set(means[l] + sigmas[l] * noise[l]);
    }
    return RunForward(module, images).log_softmax(1);
  };
  VariationalNetwork::Rounded rounded;
  const auto answer = [&](const torch::Tensor& images, const Noise& noise) {
    network.SetWeights(rounded, noise);
    return network.Forward(images).log_softmax(1);
  };
  // The last: distorted with one label, with several; blends, shapes, rearranged.
  const std::int64_t groups = uncertainty != nullptr ? uncertainty->count + kDistortedKinds + kUnseenKinds : 0;
  Holder single_holder(groups), pair_holder(groups);
  torch::Tensor unit = torch::zeros({groups});  // of the charges: running mean of the divergence in every group
  // 1 for images with one label, as they are
  const torch::Tensor once = uncertainty != nullptr
                                 ? torch::cat({uncertainty->once, torch::zeros({kDistortedKinds + kUnseenKinds})})
                                 : torch::Tensor();
  RandomStream stream(seed, "bayes/distorted");
  const auto loss = [&](const Minibatch& batch) {
    rounded = network.Round();
    if (uncertainty == nullptr) {
      return Divergence(expected(batch.images, batch.noise), answer(batch.images, batch.noise)).mean();
    }
    const std::int64_t count = batch.rows.numel(), distorted = count / kImagesPerDistorted,
                       unseen = (count + kImagesPerUnseen - 1) / kImagesPerUnseen, all_unseen = kUnseenKinds * unseen;
    const torch::Tensor images =
        torch::cat({Distorted(batch.images.slice(0, 0, distorted), stream), batch.images.slice(0, distorted),
                    Blended(batch.images, unseen), Shapes(batch.images, unseen, stream),
                    Rearranged(batch.images, unseen, stream)});
    const torch::Tensor of_row = uncertainty->of_row.index_select(0, batch.rows);
    const torch::Tensor several = uncertainty->once.index_select(0, of_row).eq(0.0).to(torch::kInt64);
    const torch::Tensor group =
        torch::cat({uncertainty->count + several.slice(0, 0, distorted), of_row.slice(0, distorted),
                    torch::arange(groups - kUnseenKinds, groups, torch::kInt64).repeat_interleave(unseen)});
    const torch::Tensor weight = torch::cat({torch::full({count}, 1.0 / static_cast<double>(count)),
                                             torch::full({all_unseen}, kUnseen / static_cast<double>(unseen))});
    const auto by_group = [&](const torch::Tensor& values) {
      return torch::zeros({groups}).index_add(0, group, weight * values);
    };
    const torch::Tensor log_p = expected(images, batch.noise), other_p = expected(images, batch.other_noise);
    const torch::Tensor log_q = answer(images, batch.noise), other_q = answer(images, batch.other_noise);
    const auto [p_single, p_pair] = PairUncertainty(log_p, other_p);
    const auto [q_single, q_pair] = PairUncertainty(log_q, other_q);
    const torch::Tensor divergence = by_group((Divergence(log_p, log_q) + Divergence(other_p, other_q)) / 2.0);
    const torch::Tensor following =
        divergence.detach().minimum(kFollowing * by_group(torch::ones({count + all_unseen})));
    unit = torch::where(unit.gt(0.0), 0.97 * unit + 0.03 * following, following);
    const double known = unit.slice(0, 0, groups - kUnseenKinds).sum().item<double>();
    const double teaching = schedule.always_teach ? 1.0 : std::min(1.0, known / kFaithful);
    const torch::Tensor labels = train.labels.index_select(0, batch.rows);
    const auto nll = [&](const torch::Tensor& log_answers) {
      return torch::nll_loss(log_answers.slice(0, 0, count), labels);
    };
    return divergence.sum() + kLabels * teaching * (nll(log_q) + nll(other_q)) / 2.0 +
           single_holder.Charge(by_group(q_single), by_group(p_single), unit) +
           pair_holder.Charge(by_group(q_pair), by_group(p_pair) * (1.0 + kPairAhead * teaching * once), unit);
  };
  return Learn(network, train, normalizer, options, schedule, seed, "reference", uncertainty != nullptr, progress,
               loss);
}

}  // namespace bitplan
