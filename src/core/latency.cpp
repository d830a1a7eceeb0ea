#include "bitplan/core/latency.h"

#include <algorithm>
#include <tuple>

#include "bitplan/core/constraints.h"

namespace bitplan {

std::vector<LatencyEntry> LatencyOf(const std::vector<LatencyRow>& rows, const std::string& layer,
                                    const std::string& kind) {
  std::vector<LatencyEntry> entries;
  for (const LatencyRow& row : rows) {
    if (!row.layer.empty() && !MatchesPattern(layer, row.layer)) continue;
    if (!row.kind.empty() && row.kind != kind) continue;
    const int rank = !row.layer.empty() ? 0 : !row.kind.empty() ? 1 : 2;
    entries.push_back({rank, row.weight_bits, row.activation_bits, row.nanoseconds});
  }
  std::reverse(entries.begin(), entries.end());  // the last of equal rows comes first
  std::stable_sort(entries.begin(), entries.end(), [](const LatencyEntry& a, const LatencyEntry& b) {
    return std::tie(a.rank, a.weight_bits, a.activation_bits) < std::tie(b.rank, b.weight_bits, b.activation_bits);
  });
  return entries;
}

const LatencyEntry* FindLatency(const std::vector<LatencyEntry>& entries, int weight_bits, int activation_bits) {
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const LatencyEntry& entry) {
    return entry.weight_bits >= weight_bits && entry.activation_bits >= activation_bits;
  });
  return found == entries.end() ? nullptr : &*found;
}

}  // namespace bitplan
