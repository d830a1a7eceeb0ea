// What quantizing several layers at once really costs: the measurement that every additive table tries to predict.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bitplan/sensitivity/sensitivity.h"

namespace bitplan {

struct ActivationLevels;  // src/sensitivity/activation_levels.h

struct JointRise {
  double divergence = 0.0;  // mean KL(float || quantized) of the predictions: the expected rise of the loss, nats per
                            // sample, if the float network's own predictions were the truth
  double loss_rise = 0.0;   // rise of the mean NLL of the labels, nats per sample; may be negative
};

// Measures joint plans on `inputs.options.samples` training images. Batch norms are corrected by `transfer` unless
// inputs.quantizer.batch_norm is "off"; then all images go through at once.
class JointPlans {
 public:
  // `activations`, which must outlive it: the levels of plans that round activations too; null: of weights alone.
  explicit JointPlans(const SensitivityInputs& inputs, const ActivationLevels* activations = nullptr);
  ~JointPlans();
  JointPlans(const JointPlans&) = delete;
  JointPlans& operator=(const JointPlans&) = delete;

  // `columns`: one index into inputs.widths per layer; the first `samples` images only when that is > 0.
  [[nodiscard]] JointRise Measure(const std::vector<int>& columns, std::int64_t samples = 0);
  // With activations: `activation_columns` has of every layer one index into the widths of the levels, that of the
  // tensor which it reads, or kFloatColumn.
  [[nodiscard]] JointRise Measure(const std::vector<int>& columns, const std::vector<int>& activation_columns,
                                  std::int64_t samples);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct RandomPlans {
  std::vector<std::vector<int>> columns;             // [plans][layers]
  std::vector<std::vector<int>> activation_columns;  // [plans][layers], or empty: of plans of weights alone
  std::vector<JointRise> rises;                      // [plans]
  std::int64_t drawn = 0;                            // how many had to be drawn
};

// `count` measured plans. Every plan draws a tilt t, uniform in [0, 0.8], and its widths independently with
// probabilities proportional to exp(t * column): some plans spread evenly over all widths, others lean to the wide end,
// so that deep networks have plans that work at all. Plans with a loss rise or a divergence of more than `limit` nats
// are drawn again, at most 200 times `count` draws in all. With `activations` every tensor that layers read gets a
// width of its own in the same way, with a tilt of its own.
[[nodiscard]] RandomPlans DrawRandomPlans(const SensitivityInputs& inputs, int count, double limit, std::uint64_t seed,
                                          ProgressSink& progress, const ActivationLevels* activations = nullptr);

}  // namespace bitplan
