#include "bitplan/core/choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"

namespace bitplan {
namespace {

[[noreturn]] void Contradicts(const std::string& what) {
  throw Error(ErrorKind::kInternal, "inconsistent choice problem: " + what);
}

void ValidateChoice(const Choice& choice, std::size_t limits, const std::string& where) {
  if (!std::isfinite(choice.loss_rise)) Contradicts(where + ".loss_rise is not finite");
  if (choice.cost.size() != limits) {
    Contradicts(where + ".cost has " + Counted(std::ssize(choice.cost), "entry", "entries") + " for " +
                Counted(static_cast<std::int64_t>(limits), "limit"));
  }
  constexpr std::int64_t kMost = std::int64_t{1} << 52;  // sums of thousands stay exact
  for (const std::int64_t cost : choice.cost) {
    if (cost < 0 || cost > kMost) Contradicts(where + ".cost is " + std::to_string(cost) + "; it must be in 0..2^52");
  }
}

// Of "4" or "16", else -1.
int WidthIn(const std::string& digits) {
  const bool number = !digits.empty() && digits.size() <= 2 &&
                      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return number ? std::stoi(digits) : -1;
}

}  // namespace

std::string FormatName(const Format& format) { return fmt::format("W{}A{}", format.weights, format.activations); }

Format ParseFormat(const std::string& name, const std::string& key) {
  const std::size_t middle = name.find('A');
  Format format{-1, -1};
  if (name.starts_with('W') && middle != std::string::npos) {
    format = {WidthIn(name.substr(1, middle - 1)), WidthIn(name.substr(middle + 1))};
  }
  if (format.weights < 0 || format.weights > 8 || format.activations < 2 || format.activations > 16) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} has '{}'; a pair of widths is written W4A8, weights in 0..8 bits and "
                            "activations in 2..16",
                            key, name));
  }
  return format;
}

void ChoiceProblem::Validate() const {
  if (units.empty()) Contradicts("units is empty");
  if (limits.empty()) Contradicts("limits is empty");
  for (const ChoiceLimit& limit : limits) {
    if (limit.capacity < 0) Contradicts("the limit of " + limit.name + " is " + std::to_string(limit.capacity));
  }
  for (std::size_t u = 0; u < units.size(); ++u) {
    const std::string unit = "units[" + std::to_string(u) + "] (" + units[u].name + ")";
    if (units[u].choices.empty()) Contradicts(unit + " has no choice");
    for (std::size_t k = 0; k < units[u].choices.size(); ++k) {
      ValidateChoice(units[u].choices[k], limits.size(), unit + ".choices[" + std::to_string(k) + "]");
    }
  }
}

}  // namespace bitplan
