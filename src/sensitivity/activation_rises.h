// What rounding the input of a layer is expected to cost, before anything is rounded.
//
// The gradient g of a Fisher sketch of a minibatch (posterior/batches.h) with respect to a tensor of activations obeys,
// along its rounding error da, what it obeys for weights:
//   E[(g . da)^2] = 2 * (loss rise along da) * batch,
// one dot product per tensor and width for every backward pass. Rises of tensors add where their errors are
// independent. Where the weights' own dot products g . dw of the same passes are known, what a layer's weights and its
// input cost together beyond the sum of both is E[(g . dw)(g . da)] / batch: measured, not assumed to be nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bitplan/sensitivity/sensitivity.h"
#include "sensitivity/activation_levels.h"
#include "sensitivity/read_watch.h"

namespace bitplan {

struct ActivationRises {
  std::vector<int> widths;                     // ascending, each 2..8 or 16
  std::vector<std::size_t> tensors;            // of every layer the first one that reads the same tensor
  std::vector<std::vector<double>> loss_rise;  // [layers][widths], nats per sample; zeros but for first readers
  // What both roundings of a layer cost beyond the sum, nats per sample, either sign: [layers][weight widths][widths],
  // 0 where it is less than three of its standard errors. Empty: not measured.
  std::vector<int> weight_widths{};
  std::vector<std::vector<std::vector<double>>> together{};
};

// Beside the backward passes of a metric of weights, or by passes of its own (MeasureActivationRises). For one pass:
//   AddImages in front of the first; then for every minibatch the forward pass, TakeReads, a backward pass to these
//   tensors, Add.
class ActivationMeter {
 public:
  // Fits the levels: `widths` as in ActivationRises, `range` as FitActivation has it. Error(kData) for activations that
  // are not finite. `inputs` must outlive the meter.
  ActivationMeter(const SensitivityInputs& inputs, const std::vector<int>& widths, const std::string& range);

  // From here on forward passes of the network's module, which record gradients, are seen.
  void Watch();
  // What first readers have read since, with its graph.
  [[nodiscard]] std::vector<torch::Tensor> TakeReads();
  // Gradients of one sketch with respect to the tensors that TakeReads gave last, for so many images. `weight_dots`:
  // g . dw of the same sketch, [layers * weight widths], or empty. Error(kData) where a gradient is not finite.
  void Add(const std::vector<torch::Tensor>& gradients, std::int64_t images, const std::vector<double>& weight_dots);
  // Stops watching. `weight_widths`: those of the dots, or none.
  [[nodiscard]] ActivationRises Finish(const std::vector<int>& weight_widths);

 private:
  const SensitivityInputs& inputs_;
  ActivationLevels levels_;
  std::unique_ptr<ReadWatch> watch_;
  std::vector<ReadWatch::Read> taken_;
  std::int64_t images_ = 0, batches_ = 0;
  std::vector<double> squares_;            // [layers][widths] sums of (g . da)^2
  std::vector<double> products_, spread_;  // [layers][weight widths][widths] sums of (g . dw)(g . da), and its square
};

// By forward and backward passes of its own, the images and signs of the metric `posterior`. `range`: as FitActivation
// has it. Error(kData) where a gradient is not finite, or a layer's input has none.
[[nodiscard]] ActivationRises MeasureActivationRises(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                                     const std::string& range, ProgressSink& progress);

}  // namespace bitplan
