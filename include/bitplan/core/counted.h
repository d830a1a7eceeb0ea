// Counts in sentences.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bitplan {

// 1234567 -> "1,234,567".
[[nodiscard]] std::string Grouped(std::int64_t value);

// (1, "layer") -> "1 layer", (1234, "layer") -> "1,234 layers", (2, "bias", "biases") -> "2 biases".
[[nodiscard]] std::string Counted(std::int64_t count, std::string_view noun, std::string_view plural = {});

// (1.0, "bit") -> "1 bit", (1.25, "bit") -> "1.25 bits"; as many digits as the number needs, six at most.
[[nodiscard]] std::string Quantity(double amount, std::string_view noun);

}  // namespace bitplan
