// Whole numbers of a JSON file that others may have written.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bitplan/core/error.h"

namespace bitplan {

// nlohmann's own conversion takes 1e300, 2.5 and true for whole numbers. Error(kData).
template <typename Json>
[[nodiscard]] std::int64_t WholeNumber(const Json& value) {
  const bool fits =
      value.is_number_unsigned()
          ? value.template get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
          : value.is_number_integer();
  if (!fits) {
    const std::string shown =
        value.is_primitive() ? value.dump(-1, ' ', true, Json::error_handler_t::replace) : "no number";
    throw Error(ErrorKind::kData, "a whole number is wanted, not " + shown.substr(0, 40));
  }
  return value.template get<std::int64_t>();
}

template <typename Json>
[[nodiscard]] std::vector<std::int64_t> WholeNumbers(const Json& list) {
  if (!list.is_array()) throw Error(ErrorKind::kData, "a list of whole numbers is wanted");
  std::vector<std::int64_t> numbers;
  for (const Json& value : list) numbers.push_back(WholeNumber(value));
  return numbers;
}

}  // namespace bitplan
