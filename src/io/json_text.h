// JSON as text, whatever bytes the strings in it hold: paths need not be UTF-8.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace bitplan {

// `indent` < 0: on one line. Bytes that are no UTF-8 become U+FFFD.
template <typename Json>
[[nodiscard]] std::string JsonText(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// The text with every byte that is no UTF-8 replaced by U+FFFD.
[[nodiscard]] inline std::string ValidUtf8(const std::string& text) {
  return nlohmann::json::parse(JsonText(nlohmann::json(text))).get<std::string>();
}

}  // namespace bitplan
