#include "bitplan/sensitivity/joint_plans.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "posterior/batches.h"
#include "sensitivity/units.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBatch = 128;
constexpr int kMostDrawsPerPlan = 200;
constexpr double kLargestTilt = 0.8;
constexpr double kScreen = 2.0;  // a first minibatch this many times above the limit decides

torch::Tensor LogProbabilities(torch::jit::Module& module, const torch::Tensor& images) {
  return module.forward({images}).toTensor().log_softmax(1);
}

std::vector<int> DrawColumns(std::size_t layers, std::size_t widths, RandomStream& stream) {
  const double tilt = stream.Uniform(0.0, kLargestTilt);
  std::vector<double> cumulative;
  double total = 0.0;
  for (std::size_t k = 0; k < widths; ++k) cumulative.push_back(total += std::exp(tilt * static_cast<double>(k)));
  std::vector<int> columns;
  for (std::size_t l = 0; l < layers; ++l) {
    const auto found = std::upper_bound(cumulative.begin(), cumulative.end() - 1, stream.Uniform() * total);
    columns.push_back(static_cast<int>(found - cumulative.begin()));
  }
  return columns;
}

}  // namespace

struct JointPlans::State {
  const SensitivityInputs& inputs;
  QuantizedLayers quantized;
  torch::jit::Module module;
  std::vector<torch::Tensor> images, labels, reference;  // minibatches
  std::vector<int> now;                                  // columns in the module, -1: float
};

JointPlans::JointPlans(const SensitivityInputs& inputs)
    : state_(new State{inputs, FitAllWidths(inputs), CloneModule(inputs.network.module), {}, {}, {}, {}}) {
  const torch::NoGradGuard no_grad;
  RandomStream draws(inputs.seed, "sensitivity/joint");
  const torch::Tensor index = DrawSamples(inputs.train, std::max(1, inputs.options.samples), draws);
  torch::jit::Module network = inputs.network.module;
  for (std::int64_t begin = 0; begin < index.size(0); begin += kBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kBatch, index.size(0)));
    state_->images.push_back(inputs.normalizer.Apply(inputs.train.images.index_select(0, rows)));
    state_->labels.push_back(inputs.train.labels.index_select(0, rows));
    state_->reference.push_back(LogProbabilities(network, state_->images.back()));
  }
  state_->now.assign(inputs.network.layers.size(), -1);
}

JointPlans::~JointPlans() = default;

JointRise JointPlans::Measure(const std::vector<int>& columns, std::int64_t samples) {
  const torch::NoGradGuard no_grad;
  for (std::size_t l = 0; l < columns.size(); ++l) {
    if (columns[l] == state_->now[l]) continue;
    const auto k = static_cast<std::size_t>(columns[l]);
    GetTensor(state_->module, state_->inputs.network.layers[l].parameter)
        .copy_(state_->quantized.rows[l].Values(state_->quantized.fits[l][k]));
    state_->now[l] = columns[l];
  }
  JointRise sum;
  std::int64_t seen = 0;
  for (std::size_t b = 0; b < state_->images.size() && (samples == 0 || seen < samples); ++b) {
    ThrowIfInterrupted();
    const torch::Tensor now = LogProbabilities(state_->module, state_->images[b]);
    const torch::Tensor& before = state_->reference[b];
    sum.divergence += (before.exp() * (before - now)).sum(torch::kFloat64).item<double>();
    sum.loss_rise += (before - now).gather(1, state_->labels[b].unsqueeze(1)).sum(torch::kFloat64).item<double>();
    seen += now.size(0);
  }
  return {std::max(0.0, sum.divergence / static_cast<double>(seen)), sum.loss_rise / static_cast<double>(seen)};
}

RandomPlans DrawRandomPlans(const SensitivityInputs& inputs, int count, double limit, std::uint64_t seed,
                            ProgressSink& progress) {
  JointPlans measure(inputs);
  RandomStream stream(seed, "sensitivity/random-plans");
  RandomPlans plans;
  const auto above = [](const JointRise& rise, double bound) {
    return !(rise.divergence <= bound && rise.loss_rise <= bound);  // also when it is not a number
  };
  progress.Begin("random plans", count, "plans");
  while (static_cast<int>(plans.columns.size()) < count && plans.drawn < std::int64_t{kMostDrawsPerPlan} * count) {
    std::vector<int> columns = DrawColumns(inputs.network.layers.size(), inputs.widths.size(), stream);
    ++plans.drawn;
    if (above(measure.Measure(columns, kBatch), kScreen * limit)) continue;
    const JointRise rise = measure.Measure(columns);
    if (above(rise, limit)) continue;
    plans.columns.push_back(std::move(columns));
    plans.rises.push_back(rise);
    progress.Advance(1);
  }
  progress.End("");
  return plans;
}

}  // namespace bitplan
