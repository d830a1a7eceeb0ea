// The nearest known name for a misspelt one, and lists of registered things.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bitplan/core/error.h"

namespace bitplan {

// The candidate with the least Damerau-Levenshtein distance, or "" when none is within half the word's length.
[[nodiscard]] std::string NearestName(std::string_view word, const std::vector<std::string>& candidates);

// "unknown allocator 'quantil-inform'; known: exact, quantile-inform, uniform; nearest: quantile-inform".
[[nodiscard]] std::string UnknownNameMessage(std::string_view what, std::string_view word,
                                             const std::vector<std::string>& candidates);

// The entry of a list of registered things whose `name` is that one; Error(kUsage) with the message above. `what`: the
// kind of thing, as in "allocator".
template <typename Entries>
[[nodiscard]] const auto& FindByName(const Entries& entries, std::string_view what, std::string_view name) {
  std::vector<std::string> known;
  for (const auto& entry : entries) {
    if (entry.name == name) return entry;
    known.emplace_back(entry.name);
  }
  throw Error(ErrorKind::kUsage, UnknownNameMessage(what, name, known));
}

}  // namespace bitplan
