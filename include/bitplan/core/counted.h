// Counts in sentences.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bitplan {

// 1234567 -> "1,234,567".
[[nodiscard]] std::string Grouped(std::int64_t value);

// (1, "layer") -> "1 layer", (1234, "layer") -> "1,234 layers"; for nouns whose plural is an s.
[[nodiscard]] std::string Counted(std::int64_t count, std::string_view noun);

}  // namespace bitplan
