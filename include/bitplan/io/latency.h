// Tables of latencies (core/latency.h) as CSV files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/latency.h"

namespace bitplan {

// The columns layer, kind, weight_bits, activation_bits, microseconds in any order; fields without quotes. Error(kData)
// that names file and line.
[[nodiscard]] std::vector<LatencyRow> ParseLatencyTable(const std::string& text, const std::string& file_name);
[[nodiscard]] std::vector<LatencyRow> LoadLatencyTable(const std::filesystem::path& file);

}  // namespace bitplan
