#include "bitplan/core/counted.h"

#include <fmt/format.h>

namespace bitplan {

std::string Grouped(std::int64_t value) {
  const std::string digits = std::to_string(value);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && digits[i - 1] != '-' && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string Counted(std::int64_t count, std::string_view noun, std::string_view plural) {
  const std::string many = plural.empty() ? std::string(noun) + "s" : std::string(plural);
  return Grouped(count) + " " + (count == 1 ? std::string(noun) : many);
}

std::string Quantity(double amount, std::string_view noun) {
  const std::string number = fmt::format("{:g}", amount);
  return fmt::format("{} {}{}", number, noun, number == "1" ? "" : "s");
}

}  // namespace bitplan
