#include "io/recipe_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "io/yaml_text.h"

namespace bitplan {
namespace {

std::string Format(int value) { return std::to_string(value); }
std::string Format(std::uint64_t value) { return std::to_string(value); }
std::string Format(const std::optional<std::uint64_t>& value) { return value ? std::to_string(*value) : ""; }
std::string Format(double value) { return FormatNumber(value); }
std::string Format(const std::optional<double>& value) { return value ? FormatNumber(*value) : ""; }
std::string Format(bool value) { return value ? "true" : "false"; }
std::string Format(const std::string& value) { return value.empty() ? "" : FormatText(value); }
std::string Format(const std::vector<Pin>& pins) {
  std::string text;
  for (const Pin& pin : pins)
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", FormatText(pin.pattern), pin.bits);
  return text.empty() ? "" : "{" + text + "}";
}
template <typename T>
std::string Format(const std::vector<T>& values) {
  if (values.empty()) return "";
  std::vector<std::string> items;
  for (const T& value : values) items.push_back(Format(value));
  return FormatList(items);
}

// The type of an option in words, told from a value of that type.
const char* Name(int) { return "whole number"; }
const char* Name(std::uint64_t) { return "whole number"; }
const char* Name(const std::optional<std::uint64_t>&) { return "whole number"; }
const char* Name(double) { return "number"; }
const char* Name(const std::optional<double>&) { return "number"; }
const char* Name(bool) { return "true or false"; }
const char* Name(const std::string&) { return "text"; }
const char* Name(const std::vector<int>&) { return "list of whole numbers"; }
const char* Name(const std::vector<double>&) { return "list of numbers"; }
const char* Name(const std::vector<std::string>&) { return "list of texts"; }
const char* Name(const std::vector<std::vector<std::string>>&) { return "list of lists of texts"; }
const char* Name(const std::vector<Pin>&) { return "map of whole numbers"; }

template <typename OnBudget, typename OnValue>
std::string Dispatch(const RecipeOption& option, Recipe& recipe, OnBudget on_budget, OnValue on_value) {
  return std::visit(
      [&](const auto& field) -> std::string {
        if constexpr (std::is_same_v<std::decay_t<decltype(field)>, BudgetField>) {
          return on_budget(*field.resource);
        } else {
          return on_value(field(recipe));
        }
      },
      option.field);
}

}  // namespace

const RecipeOption* FindRecipeOption(const std::string& path) {
  const auto& options = RecipeOptions();
  const auto found = std::find_if(options.begin(), options.end(), [&](const auto& o) { return o.path == path; });
  return found == options.end() ? nullptr : &*found;
}

std::vector<std::string> RecipeKeys(const std::string& path) {
  const std::string prefix = path.empty() ? "" : path + ".";
  std::vector<std::string> keys;
  for (const RecipeOption& option : RecipeOptions()) {
    if (option.path.rfind(prefix, 0) != 0) continue;
    const std::string rest = option.path.substr(prefix.size());
    const std::string key = rest.substr(0, rest.find('.'));
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  }
  return keys;
}

std::string SectionOf(const RecipeOption& option) {
  const auto dot = option.path.find('.');
  return dot == std::string::npos ? "" : option.path.substr(0, dot);
}

std::string FormatOption(const RecipeOption& option, Recipe& recipe) {
  return Dispatch(
      option, recipe,
      [&](const Resource& resource) -> std::string {
        const Limit* limit = recipe.allocate.budget.Find(resource);
        return limit != nullptr ? FormatLimitValue(*limit) : "";
      },
      [](const auto& value) { return Format(value); });
}

std::string TypeName(const RecipeOption& option) {
  Recipe recipe;
  return Dispatch(
      option, recipe, [](const Resource&) { return "number"; }, [](const auto& value) { return Name(value); });
}

std::string DescribeValues(const RecipeOption& option) {
  if (!option.choices.empty()) return fmt::format("one of {}", fmt::join(option.choices, ", "));
  std::string text = option.unit;
  if (option.range.bounded()) text += (text.empty() ? "" : ", ") + option.range.Describe();
  return text;
}

std::string DescribeDefault(const RecipeOption& option) {
  if (option.required) return "required";
  Recipe defaults;
  const std::string value = FormatOption(option, defaults);
  return value.empty() ? "no default" : "default " + value;
}

}  // namespace bitplan
