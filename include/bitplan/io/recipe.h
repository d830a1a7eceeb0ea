// Recipes: one YAML file describes one whole run. The option table states every key once, with its unit, range, default
// and help; checks, `bitplan help recipe` and docs/recipe.md come from it.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan {

// Reads, overrides and checks a recipe. `overrides`: "key.path=value" of --set, applied in order; the value is YAML.
// Error(kUsage) with "file:line: unknown key 'epoch' in train; nearest known key: epochs", with the violated bound for
// a value out of range, or the expected type; Error(kNotFound) for a missing file. `check_names`: looks up names of
// rooms that io does not know, before keys are held against them; null: they are taken as they are.
[[nodiscard]] Recipe LoadRecipe(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                                const std::function<void(const Recipe&)>& check_names = {});

// The complete recipe with every default filled in, stable order and number formatting. Loading it gives the same
// recipe.
[[nodiscard]] std::string DumpRecipe(const Recipe& recipe);

// One section ("train") of DumpRecipe, for the input hash of a stage.
[[nodiscard]] std::string DumpRecipeSection(const Recipe& recipe, const std::string& section);

// What may stand at a key whose values are lists of rooms that io does not know: "allocate.allocator" -> all
// allocators.
using RecipeNames = std::map<std::string, std::vector<std::string>>;

// The reference of all keys: for the terminal, and as Markdown for docs/recipe.md.
[[nodiscard]] std::string RecipeHelp(const RecipeNames& names);
[[nodiscard]] std::string RecipeHelpMarkdown(const RecipeNames& names);

// Every key ("train.optimizer") with the words that may stand there; none where it is a number or any text.
struct RecipeKeyWords {
  std::string path;
  std::vector<std::string> words;
};
[[nodiscard]] std::vector<RecipeKeyWords> RecipeWords(const RecipeNames& names);

}  // namespace bitplan
