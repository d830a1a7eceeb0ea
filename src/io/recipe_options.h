// The single table of recipe options: every key with its type, unit, range, default and help. Reading, checking,
// dumping and documenting a recipe all walk this table; adding an option is one field in core/options.h (with its
// default) and one entry in recipe_keys.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bitplan/core/options.h"
#include "io/yaml_source.h"

namespace bitplan {

// Where the value lives in a Recipe; the type of the reference is the type of the option. A budget key stands for the
// resource that it names.
template <typename T>
using FieldOf = T& (*)(Recipe&);
struct BudgetField {
  const Resource* resource;
};
using RecipeField =
    std::variant<FieldOf<int>, FieldOf<std::uint64_t>, FieldOf<std::optional<std::uint64_t>>, FieldOf<double>,
                 FieldOf<std::optional<double>>, FieldOf<bool>, FieldOf<std::string>, FieldOf<std::vector<int>>,
                 FieldOf<std::vector<double>>, FieldOf<std::vector<std::string>>,
                 FieldOf<std::vector<std::vector<std::string>>>, FieldOf<std::vector<Pin>>, BudgetField>;

struct RecipeOption {
  std::string path;  // "train.learning_rate"
  RecipeField field;
  std::string unit;                  // of a number; empty: none
  Range range;                       // of a number, or of every entry of a list
  std::vector<std::string> choices;  // of a text; empty: any
  bool required = false;
  std::string help;    // one phrase
  bool alone = false;  // of a list: one entry may stand without brackets
};

// In the order of a dumped recipe; the options of a section, and of a map inside a section, stand together.
[[nodiscard]] const std::vector<RecipeOption>& RecipeOptions();
[[nodiscard]] const RecipeOption* FindRecipeOption(const std::string& path);  // null when unknown

struct RecipeSection {
  std::string name;  // "train"; "" for the keys of the root
  std::string help;
};
[[nodiscard]] const std::vector<RecipeSection>& RecipeSections();

// Names that may follow `path` ("" for the root): the keys of a map. Empty when `path` is an option, or unknown.
[[nodiscard]] std::vector<std::string> RecipeKeys(const std::string& path);

// The section of an option, "" for the root.
[[nodiscard]] std::string SectionOf(const RecipeOption& option);

// The value as YAML in one line; "" when nothing is to be written: an empty text or list, or a resource without a
// limit.
[[nodiscard]] std::string FormatOption(const RecipeOption& option, Recipe& recipe);

// "whole number", "list of numbers", ...
[[nodiscard]] std::string TypeName(const RecipeOption& option);
// "images >= 1", "one of adam, sgd", or "".
[[nodiscard]] std::string DescribeValues(const RecipeOption& option);
// "default 8", "required", "default: none".
[[nodiscard]] std::string DescribeDefault(const RecipeOption& option);

}  // namespace bitplan
