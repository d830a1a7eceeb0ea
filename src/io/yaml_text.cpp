#include "io/yaml_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

// Words that some YAML reader takes for something else than text.
bool IsReserved(const std::string& text) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const char* word : {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}) {
    if (lower == word) return true;
  }
  return false;
}

// "1.13.0": two points or more make it no number for any reader.
bool IsVersion(const std::string& text) {
  return text.find_first_not_of("0123456789.") == std::string::npos && std::count(text.begin(), text.end(), '.') >= 2 &&
         text.front() != '.';
}

}  // namespace

std::string FormatNumber(double value) {
  if (!std::isfinite(value)) throw Error(ErrorKind::kInternal, "a number to be written to a file is not finite");
  if (value == 0.0) return "0.0";  // negative zero too
  const double magnitude = std::abs(value);
  const bool fixed = magnitude >= 1e-5 && magnitude < 1e15;
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer, end);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string FormatLimitValue(const Limit& limit) {
  const bool whole = !limit.resource.get().per_weight && limit.value == std::floor(limit.value);
  return whole ? fmt::format("{:.0f}", limit.value) : FormatNumber(limit.value);
}

std::string FormatQuoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string FormatText(const std::string& text) {
  const auto is_word = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-' || c == '/';
  };
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), is_word) &&
                     std::isalpha(static_cast<unsigned char>(text.front())) != 0 && !IsReserved(text);
  return plain || IsVersion(text) ? text : FormatQuoted(text);
}

std::string FormatList(const std::vector<std::string>& items) { return fmt::format("[{}]", fmt::join(items, ", ")); }

}  // namespace bitplan
