#include "bitplan/sensitivity/joint_plans.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "bitplan/core/likelihood_oracle.h"
#include "bitplan/core/random.h"
#include "posterior/finite.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/quantized_run.h"

namespace bitplan {
namespace {

constexpr std::int64_t kScreened = 128;  // images that decide first
constexpr int kMostDrawsPerPlan = 200;
constexpr double kLargestTilt = 0.8;
constexpr double kScreen = 2.0;  // a first look this many times above the limit decides

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

// Of every layer the column of the tensor that it reads.
std::vector<int> DrawActivations(const ActivationLevels& levels, RandomStream& stream) {
  const std::vector<int> drawn = DrawColumns(levels.tensors.size(), levels.widths.size(), stream);
  std::vector<int> columns;
  for (const std::size_t tensor : levels.tensors) {
    columns.push_back(levels.rounds(tensor) ? drawn[tensor] : kFloatColumn);
  }
  return columns;
}

}  // namespace

struct JointPlans::State {
  State(const SensitivityInputs& inputs, const ActivationLevels* levels)
      : activations(levels), run(inputs, std::max(1, inputs.options.samples), "sensitivity/joint", levels) {
    const torch::NoGradGuard no_grad;
    const torch::Tensor logits = run.Logits();
    run.RequireSound(logits);
    reference = logits.log_softmax(1);
  }

  const ActivationLevels* activations;
  QuantizedRun run;
  torch::Tensor reference;  // log-probabilities of the float network [n, classes]
};

JointPlans::JointPlans(const SensitivityInputs& inputs, const ActivationLevels* activations)
    : state_(std::make_unique<State>(inputs, activations)) {}

JointPlans::~JointPlans() = default;

JointRise JointPlans::Measure(const std::vector<int>& columns, std::int64_t samples) {
  const torch::NoGradGuard no_grad;
  for (std::size_t l = 0; l < columns.size(); ++l) state_->run.Set(l, columns[l]);
  const torch::Tensor now = state_->run.Logits(samples).log_softmax(1);
  const torch::Tensor before = state_->reference.slice(0, 0, now.size(0));
  const torch::Tensor labels = state_->run.labels().slice(0, 0, now.size(0)).unsqueeze(1);
  return {MeanNotNegative(RowDivergences(before, now)),
          (before.gather(1, labels) - now.gather(1, labels)).mean(torch::kFloat64).item<double>()};
}

JointRise JointPlans::Measure(const std::vector<int>& columns, const std::vector<int>& activation_columns,
                              std::int64_t samples) {
  if (state_->activations != nullptr) {
    for (std::size_t l = 0; l < activation_columns.size(); ++l) {
      if (state_->activations->rounds(l)) state_->run.SetActivation(l, activation_columns[l]);
    }
  }
  return Measure(columns, samples);
}

RandomPlans DrawRandomPlans(const SensitivityInputs& inputs, int count, double limit, std::uint64_t seed,
                            ProgressSink& progress, const ActivationLevels* activations) {
  JointPlans measure(inputs, activations);
  RandomStream stream(seed, "sensitivity/random-plans"), widths(seed, "sensitivity/random-activations");
  RandomPlans plans;
  const auto above = [](const JointRise& rise, double bound) {
    return !(rise.divergence <= bound && rise.loss_rise <= bound);  // also when it is not a number
  };
  progress.Begin("random plans", count, "plans");
  while (static_cast<int>(plans.columns.size()) < count && plans.drawn < std::int64_t{kMostDrawsPerPlan} * count) {
    std::vector<int> columns = DrawColumns(inputs.network.layers.size(), inputs.widths.size(), stream);
    std::vector<int> read = activations != nullptr ? DrawActivations(*activations, widths) : std::vector<int>();
    ++plans.drawn;
    if (above(measure.Measure(columns, read, kScreened), kScreen * limit)) continue;
    const JointRise rise = measure.Measure(columns, read, 0);
    if (above(rise, limit)) continue;
    plans.columns.push_back(std::move(columns));
    if (activations != nullptr) plans.activation_columns.push_back(std::move(read));
    plans.rises.push_back(rise);
    progress.Advance(1);
  }
  progress.End("");
  return plans;
}

}  // namespace bitplan
