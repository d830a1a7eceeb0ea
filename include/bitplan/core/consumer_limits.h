// What a consumer of a network holds of a weight exactly as a plan has it. Every exporter states it of every layer
// (exporters/exporter.h). With the recipe's quantizer.exportable fits, tables and allocators keep to it: then the
// export changes no value, and stores no width in a wider type.
//
//   ConsumerLimits onnx;
//   onnx.zero = {0, 2, 4, 8};           // int2, int4, int8; a layer of zeros takes nothing
//   onnx.half = {};                     // odd integers take a bit more
//   onnx.negative_scales = false;
//   HeldWidths(onnx, "auto");           // {0, 2, 4, 8}
#pragma once

#include <string>
#include <vector>

namespace bitplan {

struct ConsumerLimits {
  // Widths 0..8, ascending, that a layer takes in the file as the plan counts them: on the grid with a level at zero,
  // and on the one with levels at odd halves of a step.
  std::vector<int> zero = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<int> half = {1, 2, 3, 4, 5, 6, 7, 8};
  bool negative_scales = true;                                     // whether it takes them
  bool float16_scales = false;                                     // its scales are float16
  std::vector<std::string> granularities = {"channel", "tensor"};  // values of quantizer.granularity
  bool rounds_itself = false;                                      // it takes widths and no values
  bool activations = true;                                         // whether it takes their scales

  friend bool operator==(const ConsumerLimits&, const ConsumerLimits&) = default;
};

// The grids among which a quantizer chooses at `bits` (0..8): `grid` is a value of quantizer.grid. At 0 bits zero, at 1
// half; auto: zero, at 2 and 3 bits both.
[[nodiscard]] std::vector<std::string> GridsAt(int bits, const std::string& grid);

[[nodiscard]] bool Holds(const ConsumerLimits& limits, int bits, const std::string& grid);

// The widths that have a grid that is held, ascending.
[[nodiscard]] std::vector<int> HeldWidths(const ConsumerLimits& limits, const std::string& grid);

// What both hold.
[[nodiscard]] ConsumerLimits BothHold(const ConsumerLimits& one, const ConsumerLimits& other);

// Everything that fits depend on, for hashes of what was made with these limits. Empty without limits on them.
[[nodiscard]] std::string LimitsText(const ConsumerLimits& limits);

// In words: "a level at zero, scales > 0".
[[nodiscard]] std::string HeldInWords(const ConsumerLimits& limits);

}  // namespace bitplan
