#include "bitplan/ptq/learn_rounding.h"

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/optim/adam.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/interrupt.h"
#include "bitplan/training/schedule.h"
#include "ptq/learned_layer.h"
#include "ptq/taught_images.h"
#include "quantizers/held_scales.h"

namespace bitplan {
namespace {

constexpr double kScaleRate = 0.05;  // steps of the factor of a scale, in steps of a latent
constexpr double kFloatRate = 0.05;  // steps of biases and norms, the same way

class RoundingLearner {
 public:
  RoundingLearner(const Network& network, AppliedPlan& applied, const ConsumerLimits& limits, TaughtImages& images,
                  ProgressSink& progress)
      : network_(network), applied_(applied), limits_(limits), images_(images), progress_(progress) {
    std::set<std::string> weights;
    for (const Layer& layer : network.layers) weights.insert(layer.parameter);
    for (std::size_t l = 0; l < network.layers.size(); ++l) {
      const QuantizedTensor& weight = applied.weights[l];
      if (weight.defined() && weight.bits > 0) layers_.push_back(LearnedLayer::Of(network, applied.module, l, weight));
    }
    for (const auto& parameter : applied.module.named_parameters()) {
      const bool moves = parameter.value.dim() == 1 && parameter.value.is_floating_point();
      if (moves && weights.count(parameter.name) == 0) floats_.push_back(parameter.value);
    }
    for (const torch::Tensor& value : floats_) before_.push_back(value.detach().clone());
  }

  LearnedRounding Run(int steps, double rate) {
    LearnedRounding result;
    result.held_out = images_.held_out();
    if (layers_.empty() || images_.held_out() == 0) return result;
    images_.KeepAnswers(progress_);
    result.before = images_.HeldOutDivergence();
    Learn(steps, rate);
    for (LearnedLayer& layer : layers_) {
      layer.scales = HeldScales(layer.scales * layer.factor, limits_);
      layer.factor = torch::ones_like(layer.factor);
      layer.Write();
    }
    result.after = images_.HeldOutDivergence();
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
  void Learn(int steps, double rate) {
    const torch::jit::GraphOptimizerEnabledGuard plain_graphs(false);
    std::vector<torch::Tensor> latents, factors;
    for (LearnedLayer& layer : layers_) {
      latents.push_back(layer.latent);
      factors.push_back(layer.factor);
    }
    std::vector<std::pair<double, torch::optim::Adam>> optimizers;
    optimizers.emplace_back(1.0, torch::optim::Adam(latents, torch::optim::AdamOptions(rate)));
    optimizers.emplace_back(kScaleRate, torch::optim::Adam(factors, torch::optim::AdamOptions(rate)));
    if (!floats_.empty()) {
      optimizers.emplace_back(kFloatRate, torch::optim::Adam(floats_, torch::optim::AdamOptions(rate)));
    }
    progress_.Begin("learned rounding", steps, "minibatches");
    for (int step = 0; step < steps; ++step) {
      ThrowIfInterrupted();
      Step();
      const double now = OneCycleRate(step, steps, rate);
      for (auto& [share, optimizer] : optimizers) {
        for (auto& group : optimizer.param_groups()) group.options().set_lr(share * now);
        optimizer.step();
      }
      for (LearnedLayer& layer : layers_) {
        layer.Clamp();
        layer.Write();
      }
      progress_.Advance(1);
    }
    progress_.End("");
  }

  // Gradients of one minibatch, in latents, factors and floats.
  void Step() {
    const auto learns = [&](bool yes) {
      for (LearnedLayer& layer : layers_) layer.weight.set_requires_grad(yes);
      for (torch::Tensor& value : floats_) value.set_requires_grad(yes);
    };
    for (LearnedLayer& layer : layers_) layer.weight.mutable_grad().reset();
    for (torch::Tensor& value : floats_) value.mutable_grad().reset();
    learns(true);
    try {
      images_.Backward();
    } catch (...) {
      learns(false);
      throw;
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
  TaughtImages& images_;
  ProgressSink& progress_;
  std::vector<LearnedLayer> layers_;
  std::vector<torch::Tensor> floats_, before_;  // biases and norms, and what they were
};

}  // namespace

LearnedRounding LearnRounding(const Network& network, AppliedPlan& applied, const QuantizerOptions& options,
                              const Dataset& images, const Normalizer& normalizer, int batch, std::uint64_t seed,
                              ProgressSink& progress) {
  if (options.learned_steps < 1 || images.size() == 0) return {};
  const torch::NoGradGuard no_grad;
  TaughtImages taught(network, applied, images, normalizer, batch, "learned rounding",
                      "lower quantizer.learned_rate, or set quantizer.learned_steps: 0", seed);
  return RoundingLearner(network, applied, options.limits, taught, progress)
      .Run(options.learned_steps, options.learned_rate);
}

}  // namespace bitplan
