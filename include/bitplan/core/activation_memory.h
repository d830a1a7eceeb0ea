// How much memory the activations of one input take at most, by the widths of the tensors that layers read.
//
//   peak = max over steps t of  float_bytes(t) + sum over live tensors i of ceil(elements_i * bits_i / 8)
//
// A step is an operation that runs. Live are what it reads, what it makes, and everything made before it that a later
// operation reads. Views share the tensor that they look into; an operation in place makes no tensor. A tensor that
// layers read through their activation quantizer, and nothing else in float, takes the width of that quantizer. Every
// other one, and one that is read in float as well, takes what it takes in the float network. What an operation needs
// inside itself does not count.
//
// models/activation_timeline.h finds the steps of a network; here they are numbers alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bitplan {

// A tensor whose size depends on a width.
struct LiveTensor {
  std::size_t tensor = 0;  // the first layer that reads it
  std::int64_t elements = 0;

  friend bool operator==(const LiveTensor&, const LiveTensor&) = default;
};

struct ActivationStep {
  std::string where;             // the layer that runs, or the operation and the layer before it
  std::int64_t float_bytes = 0;  // of tensors that no quantizer rounds
  std::vector<LiveTensor> rounded{};
};

struct ActivationTimeline {
  std::vector<std::size_t> tensors;   // of every layer the first one that reads the same tensor
  std::vector<ActivationStep> steps;  // in execution order
};

// The width of every tensor, at the place of its first reader: that of the layers that read it. A layer that is left in
// float (above 16) has no say.
[[nodiscard]] std::vector<int> WidthsOfTensors(const ActivationTimeline& timeline,
                                               const std::vector<int>& activation_bits);

// Bytes that `elements` values take at a width.
[[nodiscard]] std::int64_t BytesAt(std::int64_t elements, int bits);

// `widths`: of tensors, by WidthsOfTensors.
[[nodiscard]] std::int64_t LiveBytes(const ActivationStep& step, const std::vector<int>& widths);

// The step that takes most; the first of equal ones. `activation_bits`: of every layer's input, 2..16, or 32: float.
[[nodiscard]] const ActivationStep& PeakStep(const ActivationTimeline& timeline,
                                             const std::vector<int>& activation_bits);
[[nodiscard]] std::int64_t PeakActivationBytes(const ActivationTimeline& timeline,
                                               const std::vector<int>& activation_bits);

// Leaves out the steps that take no more than another one, whatever the widths are.
[[nodiscard]] std::vector<ActivationStep> WithoutDominated(std::vector<ActivationStep> steps);

}  // namespace bitplan
