// Times of layers by their widths, from a table: one machine, one runtime, measured by somebody.
//
//   layer,kind,weight_bits,activation_bits,microseconds
//   conv1,,8,8,41.5          one layer; * and ? as in pins
//   ,conv2d,8,8,120          every layer of a kind
//   ,conv2d,32,32,310        in float; an empty width is float too
//
// Which row speaks for a layer at its widths: rows that name it go before rows of its kind, and those before rows that
// name neither. Of these the one with the narrowest weights that are not narrower than asked for, then with the
// narrowest such activations: a width between two listed ones takes the wider. Of equal rows the last one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bitplan {

struct LatencyRow {
  std::string layer{};  // pattern; empty: any
  std::string kind{};   // empty: any
  int weight_bits = 32;
  int activation_bits = 32;
  std::int64_t nanoseconds = 0;
};

// A row as one layer sees it.
struct LatencyEntry {
  int rank = 0;  // 0: names the layer, 1: its kind, 2: neither
  int weight_bits = 32;
  int activation_bits = 32;
  std::int64_t nanoseconds = 0;
};

// What the rows say of a layer, in the order in which they are asked.
[[nodiscard]] std::vector<LatencyEntry> LatencyOf(const std::vector<LatencyRow>& rows, const std::string& layer,
                                                  const std::string& kind);

// The first entry that covers the widths, or null.
[[nodiscard]] const LatencyEntry* FindLatency(const std::vector<LatencyEntry>& entries, int weight_bits,
                                              int activation_bits);

}  // namespace bitplan
