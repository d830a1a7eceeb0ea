#include "bitplan/core/activation_memory.h"

#include <algorithm>
#include <map>
#include <utility>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

constexpr int kFloatWidth = 32;
constexpr int kWidestRounded = 16;

// Whether `other` takes at least as much as `step`, whatever the widths of the tensors are: a tensor takes between
// nothing and four bytes a value, and may be rounded up by less than a byte.
bool Dominates(const ActivationStep& other, const ActivationStep& step) {
  if (other.rounded == step.rounded) return other.float_bytes >= step.float_bytes;
  std::map<std::size_t, std::int64_t> more;  // values that `step` has more of a tensor
  std::int64_t rounded_up = 0;
  for (const LiveTensor& live : step.rounded) {
    more[live.tensor] += live.elements;
    rounded_up += live.elements % 8 == 0 ? 0 : 1;
  }
  for (const LiveTensor& live : other.rounded) more[live.tensor] -= live.elements;
  std::int64_t needed = step.float_bytes + rounded_up;
  for (const auto& [tensor, elements] : more) needed += std::max<std::int64_t>(0, elements) * (kFloatWidth / 8);
  return other.float_bytes >= needed;
}

}  // namespace

std::vector<int> WidthsOfTensors(const ActivationTimeline& timeline, const std::vector<int>& activation_bits) {
  if (activation_bits.size() != timeline.tensors.size()) {
    throw Error(ErrorKind::kInternal, "peak of activations: one width per layer expected");
  }
  std::vector<int> widths(activation_bits.size(), kFloatWidth);
  for (std::size_t l = 0; l < activation_bits.size(); ++l) {
    int& width = widths[timeline.tensors[l]];
    if (activation_bits[l] <= kWidestRounded) width = std::min(width, activation_bits[l]);
  }
  return widths;
}

std::int64_t BytesAt(std::int64_t elements, int bits) { return (elements * bits + 7) / 8; }

std::int64_t LiveBytes(const ActivationStep& step, const std::vector<int>& widths) {
  std::int64_t bytes = step.float_bytes;
  for (const LiveTensor& live : step.rounded) bytes += BytesAt(live.elements, widths.at(live.tensor));
  return bytes;
}

const ActivationStep& PeakStep(const ActivationTimeline& timeline, const std::vector<int>& activation_bits) {
  if (timeline.steps.empty()) throw Error(ErrorKind::kInternal, "peak of activations: no operation runs");
  const std::vector<int> widths = WidthsOfTensors(timeline, activation_bits);
  return *std::max_element(
      timeline.steps.begin(), timeline.steps.end(),
      [&](const ActivationStep& a, const ActivationStep& b) { return LiveBytes(a, widths) < LiveBytes(b, widths); });
}

std::int64_t PeakActivationBytes(const ActivationTimeline& timeline, const std::vector<int>& activation_bits) {
  return LiveBytes(PeakStep(timeline, activation_bits), WidthsOfTensors(timeline, activation_bits));
}

std::vector<ActivationStep> WithoutDominated(std::vector<ActivationStep> steps) {
  // From the end: of equal ones the first stays.
  for (std::size_t i = steps.size(); i-- > 0;) {
    for (std::size_t j = 0; j < steps.size(); ++j) {
      if (j == i || !Dominates(steps[j], steps[i])) continue;
      steps.erase(steps.begin() + static_cast<std::ptrdiff_t>(i));
      break;
    }
  }
  return steps;
}

}  // namespace bitplan
