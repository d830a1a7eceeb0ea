// The nearest known name for a misspelt one, and lists of registered things.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bitplan {

// The candidate with the least Damerau-Levenshtein distance, or "" when none is within half the word's length.
[[nodiscard]] std::string NearestName(std::string_view word, const std::vector<std::string>& candidates);

// "unknown allocator 'quantil-inform'; known: exact, quantile-inform, uniform; nearest: quantile-inform".
[[nodiscard]] std::string UnknownNameMessage(std::string_view what, std::string_view word,
                                             const std::vector<std::string>& candidates);

}  // namespace bitplan
