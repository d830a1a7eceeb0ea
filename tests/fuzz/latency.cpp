#include "bitplan/io/latency.h"

#include "fuzz/targets.h"

namespace bitplan::fuzz {

void FuzzLatency(std::string_view bytes) {
  const auto rows = ParseLatencyTable(std::string(bytes), "latency.csv");
  (void)LatencyOf(rows, "conv1", "conv2d");
}

}  // namespace bitplan::fuzz
