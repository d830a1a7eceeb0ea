// Writing YAML: the same value always gives the same characters.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/budget.h"

namespace bitplan {

// Shortest decimal form that reads back as the same double, with a point or an exponent: "3.0", "0.0004", "1e-09".
// Error(kInternal) for NaN and infinities, which no file of ours may hold.
[[nodiscard]] std::string FormatNumber(double value);

// 200000 bytes, 3.0 bits: whole bytes without a point.
[[nodiscard]] std::string FormatLimitValue(const Limit& limit);

// A text as YAML: plain where every YAML reader takes it for text, else in double quotes.
[[nodiscard]] std::string FormatText(const std::string& text);
[[nodiscard]] std::string FormatQuoted(const std::string& text);

// "[a, b, c]" of formatted items.
[[nodiscard]] std::string FormatList(const std::vector<std::string>& items);

}  // namespace bitplan
