#include "bitplan/ptq/learn_rounding.h"

#include <fmt/format.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/optim/adam.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/training/schedule.h"
#include "models/torch_reason.h"
#include "quantizers/held_scales.h"

namespace bitplan {
namespace {

constexpr double kBegin = 0.3;           // of a level: how far a latent begins from its code, at most
constexpr double kBeyond = 0.49;         // of a level: how far it may lie beyond the last one
constexpr double kScaleRate = 0.05;      // steps of the factor of a scale, in steps of a latent
constexpr double kFloatRate = 0.05;      // steps of biases and norms, the same way
constexpr double kLeastFactor = 0.1;     // of a scale
constexpr std::int64_t kHeldOut = 8;     // one image of so many
constexpr std::int64_t kKept = 1 << 26;  // numbers of the float network's answers that are kept, not made again

// A layer whose codes are learned.
struct LearnedLayer {
  std::size_t index = 0;
  torch::Tensor weight;  // what the module multiplies by, a leaf
  torch::Tensor latent;  // in levels, shape of the weight
  torch::Tensor factor;  // of the scales, [channels] or [1]
  torch::Tensor scales;  // the same, before
  float offset = 0.0F, low = 0.0F, high = 0.0F;
  int channel_dim = 0;

  // [channels] or [1] as a factor of the weight.
  [[nodiscard]] torch::Tensor Along(const torch::Tensor& of_channels) const {
    std::vector<std::int64_t> shape(static_cast<std::size_t>(latent.dim()), 1);
    shape[static_cast<std::size_t>(channel_dim)] = of_channels.size(0);
    return of_channels.reshape(shape);
  }
  [[nodiscard]] torch::Tensor Levels() const { return ((latent - offset).round() + offset).clamp(low, high); }
  void Write() const { weight.copy_(Levels().mul_(Along(scales * factor))); }
  // From the gradient of the weight to those of latent and factor.
  void Spread() {
    torch::Tensor gradient = weight.grad();
    latent.mutable_grad().reset();
    factor.mutable_grad().reset();
    if (!gradient.defined()) return;                           // these images did not reach the layer
    if (gradient.is_sparse()) gradient = gradient.to_dense();  // of an embedding that asks for it
    latent.mutable_grad() = gradient * Along(scales * factor);
    torch::Tensor of_scales = gradient * Levels() * Along(scales);
    if (factor.numel() == 1) {
      of_scales = of_scales.sum().reshape({1});
    } else {
      of_scales = of_scales.transpose(0, channel_dim).flatten(1).sum(1);
    }
    factor.mutable_grad() = of_scales;
  }
};

class RoundingLearner {
 public:
  RoundingLearner(const Network& network, AppliedPlan& applied, const ConsumerLimits& limits, const Dataset& images,
                  const Normalizer& normalizer, int batch, ProgressSink& progress)
      : network_(network),
        applied_(applied),
        limits_(limits),
        images_(images),
        normalizer_(normalizer),
        batch_(std::max<std::int64_t>(1, std::min<std::int64_t>(batch, images.size()))),
        held_out_(images.size() / kHeldOut),
        progress_(progress) {
    std::set<std::string> weights;
    for (const Layer& layer : network.layers) weights.insert(layer.parameter);
    for (std::size_t l = 0; l < network.layers.size(); ++l) {
      const QuantizedTensor& weight = applied.weights[l];
      if (weight.defined() && weight.bits > 0) layers_.push_back(Begin(l, weight));
    }
    for (const auto& parameter : applied.module.named_parameters()) {
      const bool moves = parameter.value.dim() == 1 && parameter.value.is_floating_point();
      if (moves && weights.count(parameter.name) == 0) floats_.push_back(parameter.value);
    }
    for (const torch::Tensor& value : floats_) before_.push_back(value.detach().clone());
  }

  LearnedRounding Run(const QuantizerOptions& options, std::uint64_t seed) {
    LearnedRounding result;
    result.held_out = held_out_;
    if (layers_.empty() || held_out_ == 0) return result;
    KeepAnswers();
    result.before = Divergence();
    Learn(options, seed);
    for (LearnedLayer& layer : layers_) {
      layer.scales = HeldScales(layer.scales * layer.factor, limits_);
      layer.factor = torch::ones_like(layer.factor);
      layer.Write();
    }
    result.after = Divergence();
    result.kept = result.after < result.before;
    for (const LearnedLayer& layer : layers_) {
      QuantizedTensor weight = applied_.weights[layer.index];
      const torch::Tensor codes = (layer.Levels() - layer.offset).round_().to(torch::kInt8);
      result.codes += codes.numel();
      result.moved += (codes != weight.codes).sum().item<std::int64_t>();
      if (result.kept) {
        weight.codes = codes;
        weight.scales = layer.scales;
      }
      applied_.Put(network_, layer.index, std::move(weight));  // the values of these codes, bit for bit
    }
    if (!result.kept) {
      for (std::size_t i = 0; i < floats_.size(); ++i) floats_[i].copy_(before_[i]);
    }
    return result;
  }

 private:
  LearnedLayer Begin(std::size_t index, const QuantizedTensor& weight) const {
    const Layer& layer = network_.layers[index];
    LearnedLayer learned;
    learned.index = index;
    learned.weight = GetTensor(applied_.module, layer.parameter);
    learned.scales = weight.scales.clone();
    learned.factor = torch::ones_like(weight.scales);
    learned.offset = weight.offset;
    learned.low = static_cast<float>(-(1 << (weight.bits - 1))) + weight.offset;
    learned.high = static_cast<float>((1 << (weight.bits - 1)) - 1) + weight.offset;
    learned.channel_dim = weight.channel_dim;
    learned.latent = weight.codes.to(torch::kFloat32) + weight.offset;
    const torch::Tensor scales = learned.Along(weight.scales);
    const torch::Tensor wanted = GetTensor(network_.module, layer.parameter).detach() / scales;
    const torch::Tensor way = (wanted - learned.latent).clamp(-kBegin, kBegin);
    learned.latent += torch::where(way.isfinite() & (scales != 0.0), way, torch::zeros_like(way));
    return learned;
  }

  // The images at `rows`, as the network takes them.
  [[nodiscard]] torch::Tensor Inputs(const torch::Tensor& rows) const {
    return normalizer_.Apply(images_.images.index_select(0, rows));
  }

  // Those of the float network: kept for all images where that is little.
  void KeepAnswers() {
    progress_.Begin("float answers", images_.size(), "images");
    std::vector<torch::Tensor> answers;
    for (std::int64_t begin = 0; begin < images_.size(); begin += batch_) {
      ThrowIfInterrupted();
      const std::int64_t end = std::min(begin + batch_, images_.size());
      answers.push_back(RunForward(network_.module, Inputs(torch::arange(begin, end))).to(torch::kFloat32));
      if (answers.front().numel() / batch_ * images_.size() > kKept) {
        answers.clear();
        break;
      }
      progress_.Advance(end - begin);
    }
    progress_.End("");
    if (!answers.empty()) answers_ = torch::cat(answers);
  }

  [[nodiscard]] torch::Tensor Answers(const torch::Tensor& rows, const torch::Tensor& inputs) const {
    if (answers_.defined()) return answers_.index_select(0, rows);
    const torch::NoGradGuard no_grad;
    return RunForward(network_.module, inputs).to(torch::kFloat32);
  }

  // Of every image at `rows`.
  [[nodiscard]] torch::Tensor Divergences(const torch::Tensor& rows) const {
    const torch::Tensor inputs = Inputs(rows), wanted = Answers(rows, inputs);
    const torch::Tensor given = RunForward(applied_.module, inputs).to(torch::kFloat32);
    return images_.Task().Divergences(wanted, given, images_.labels.index_select(0, rows));
  }

  // The mean over the images that do not teach: the last ones.
  [[nodiscard]] double Divergence() const {
    double sum = 0.0;
    for (std::int64_t begin = images_.size() - held_out_; begin < images_.size(); begin += batch_) {
      const std::int64_t end = std::min(begin + batch_, images_.size());
      sum += Divergences(torch::arange(begin, end)).sum(torch::kFloat64).item<double>();
    }
    const double mean = sum / static_cast<double>(held_out_);
    if (!std::isfinite(mean)) Refuse();
    return mean;
  }

  [[noreturn]] static void Refuse() {
    throw Error(ErrorKind::kData,
                "learned rounding: the divergence from the float network is not finite; lower quantizer.learned_rate, "
                "or set quantizer.learned_steps: 0");
  }

  void Learn(const QuantizerOptions& options, std::uint64_t seed) {
    const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
    std::vector<torch::Tensor> latents, factors;
    for (LearnedLayer& layer : layers_) {
      latents.push_back(layer.latent);
      factors.push_back(layer.factor);
    }
    std::vector<std::pair<double, torch::optim::Adam>> optimizers;
    optimizers.emplace_back(1.0, torch::optim::Adam(latents, torch::optim::AdamOptions(options.learned_rate)));
    optimizers.emplace_back(kScaleRate, torch::optim::Adam(factors, torch::optim::AdamOptions(options.learned_rate)));
    if (!floats_.empty()) {
      optimizers.emplace_back(kFloatRate, torch::optim::Adam(floats_, torch::optim::AdamOptions(options.learned_rate)));
    }
    const std::int64_t taught = images_.size() - held_out_;
    RandomStream stream(seed, "ptq/learned-rounding");
    torch::Tensor order;
    std::int64_t at = taught;
    progress_.Begin("learned rounding", options.learned_steps, "minibatches");
    for (int step = 0; step < options.learned_steps; ++step) {
      ThrowIfInterrupted();
      if (at + batch_ > taught) {
        order = torch::tensor(stream.Permutation(taught));
        at = 0;
      }
      Step(order.slice(0, at, std::min(at + batch_, taught)));
      at += batch_;
      const double rate = OneCycleRate(step, options.learned_steps, options.learned_rate);
      for (auto& [share, optimizer] : optimizers) {
        for (auto& group : optimizer.param_groups()) group.options().set_lr(share * rate);
        optimizer.step();
      }
      for (LearnedLayer& layer : layers_) {
        layer.latent.clamp_(layer.low - kBeyond, layer.high + kBeyond);
        layer.factor.clamp_min_(kLeastFactor);
        layer.Write();
      }
      progress_.Advance(1);
    }
    progress_.End("");
  }

  // Gradients of one minibatch, in latents, factors and floats.
  void Step(const torch::Tensor& rows) {
    const auto learns = [&](bool yes) {
      for (LearnedLayer& layer : layers_) layer.weight.set_requires_grad(yes);
      for (torch::Tensor& value : floats_) value.set_requires_grad(yes);
    };
    for (LearnedLayer& layer : layers_) layer.weight.mutable_grad().reset();
    for (torch::Tensor& value : floats_) value.mutable_grad().reset();
    learns(true);
    {
      const torch::AutoGradMode with_gradients(true);
      const torch::Tensor loss = Divergences(rows).mean();
      if (!std::isfinite(loss.item<double>())) {
        learns(false);
        Refuse();
      }
      try {
        loss.backward();
      } catch (const std::exception& error) {
        learns(false);
        throw Error(ErrorKind::kData, fmt::format("learned rounding: no gradient goes through the model: {}; set "
                                                  "quantizer.learned_steps: 0",
                                                  TorchReason(error)));
      }
    }
    learns(false);
    for (LearnedLayer& layer : layers_) {
      layer.Spread();
      layer.weight.mutable_grad().reset();
    }
  }

  const Network& network_;
  AppliedPlan& applied_;
  const ConsumerLimits& limits_;  // what scales may be
  const Dataset& images_;
  const Normalizer& normalizer_;
  std::int64_t batch_, held_out_;
  ProgressSink& progress_;
  std::vector<LearnedLayer> layers_;
  std::vector<torch::Tensor> floats_, before_;  // biases and norms, and what they were
  torch::Tensor answers_;                       // of the float network to all images, or undefined
};

}  // namespace

LearnedRounding LearnRounding(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                              const Dataset& images, const Normalizer& normalizer, int batch, std::uint64_t seed,
                              ProgressSink& progress) {
  if (options.learned_steps < 1 || images.size() == 0) return {};
  const torch::NoGradGuard no_grad;
  return RoundingLearner(network, applied, options.limits, images, normalizer, batch, progress).Run(options, seed);
}

}  // namespace bitplan
