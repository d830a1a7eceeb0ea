#include "bitplan/core/consumer_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace bitplan {
namespace {

constexpr int kWidest = 8;
constexpr int kWidestOnBothGrids = 3;

template <typename T>
std::vector<T> InBoth(const std::vector<T>& one, const std::vector<T>& other) {
  std::vector<T> both;
  std::copy_if(one.begin(), one.end(), std::back_inserter(both),
               [&](const T& value) { return std::find(other.begin(), other.end(), value) != other.end(); });
  return both;
}

}  // namespace

std::vector<std::string> GridsAt(int bits, const std::string& grid) {
  if (bits == 0) return {"zero"};
  if (bits == 1) return {"half"};
  if (grid != "auto") return {grid};
  if (bits <= kWidestOnBothGrids) return {"zero", "half"};
  return {"zero"};
}

bool Holds(const ConsumerLimits& limits, int bits, const std::string& grid) {
  const std::vector<int>& widths = grid == "half" ? limits.half : limits.zero;
  return std::find(widths.begin(), widths.end(), bits) != widths.end();
}

std::vector<int> HeldWidths(const ConsumerLimits& limits, const std::string& grid) {
  std::vector<int> widths;
  for (int bits = 0; bits <= kWidest; ++bits) {
    const std::vector<std::string> grids = GridsAt(bits, grid);
    if (std::any_of(grids.begin(), grids.end(), [&](const std::string& one) { return Holds(limits, bits, one); })) {
      widths.push_back(bits);
    }
  }
  return widths;
}

ConsumerLimits BothHold(const ConsumerLimits& one, const ConsumerLimits& other) {
  return {.zero = InBoth(one.zero, other.zero),
          .half = InBoth(one.half, other.half),
          .negative_scales = one.negative_scales && other.negative_scales,
          .float16_scales = one.float16_scales || other.float16_scales,
          .granularities = InBoth(one.granularities, other.granularities),
          .rounds_itself = one.rounds_itself || other.rounds_itself,
          .activations = one.activations && other.activations};
}

std::string LimitsText(const ConsumerLimits& limits) {
  const ConsumerLimits none;
  if (limits.zero == none.zero && limits.half == none.half && limits.negative_scales == none.negative_scales &&
      limits.float16_scales == none.float16_scales) {
    return "";
  }
  return fmt::format("zero {} half {}{}{}", fmt::join(limits.zero, " "), fmt::join(limits.half, " "),
                     limits.negative_scales ? "" : " positive", limits.float16_scales ? " float16" : "");
}

std::string HeldInWords(const ConsumerLimits& limits) {
  std::vector<std::string> parts;
  const ConsumerLimits none;
  if (limits.zero == none.zero && limits.half == none.half) {
    parts.emplace_back("every grid");
  } else {
    parts.emplace_back("a level at zero");
    if (!limits.half.empty()) parts.push_back(fmt::format("odd halves at {} bits", fmt::join(limits.half, ", ")));
  }
  if (!limits.negative_scales) parts.emplace_back("scales > 0");
  if (limits.float16_scales) parts.emplace_back("scales in float16");
  if (limits.rounds_itself) parts.emplace_back("values of its own, for it rounds by itself");
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace bitplan
