// What the option table says, as text: complete recipes and the reference of all keys.
#include <fmt/format.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "bitplan/io/recipe.h"
#include "io/recipe_options.h"

namespace bitplan {
namespace {

// "normalize" of "data.normalize.mean"; "" for an option directly below its section.
std::string InnerMap(const RecipeOption& option) {
  const std::string section = SectionOf(option);
  const auto begin = section.empty() ? 0 : section.size() + 1;
  const auto dot = option.path.find('.', begin);
  return dot == std::string::npos ? "" : option.path.substr(begin, dot - begin);
}

std::string LastKey(const RecipeOption& option) { return option.path.substr(option.path.rfind('.') + 1); }

// Keys that came with the data set folder: other recipes are written as before, so that stages made for them stay.
bool IsOfPictures(const RecipeOption& option) {
  const std::string& path = option.path;
  return path == "data.train_at_most" || path == "data.resize" || path == "data.crop" || path == "data.channels";
}

// One key a line; maps inside a section in flow style.
std::string DumpSection(const std::string& section, const Recipe& recipe) {
  Recipe copy = recipe;  // the table refers to fields of a Recipe that may be written
  const std::string indent = section.empty() ? "" : "  ";
  std::string text, inner, entries;
  const auto close_inner = [&] {
    if (!inner.empty()) text += fmt::format("{}{}: {{{}}}\n", indent, inner, entries);
    inner.clear();
    entries.clear();
  };
  for (const RecipeOption& option : RecipeOptions()) {
    if (SectionOf(option) != section || (IsOfPictures(option) && recipe.data.name != "folder")) continue;
    const std::string value = FormatOption(option, copy);
    if (value.empty()) continue;
    const std::string map = InnerMap(option);
    if (map != inner) close_inner();
    const std::string entry = LastKey(option) + ": " + value;
    if (map.empty()) {
      text += indent + entry + "\n";
    } else {
      inner = map;
      entries += (entries.empty() ? "" : ", ") + entry;
    }
  }
  close_inner();
  return section.empty() || text.empty() ? text : section + ":\n" + text;
}

// The key as a reader looks for it: without its section.
std::string KeyInSection(const RecipeOption& option) {
  const std::string section = SectionOf(option);
  return section.empty() ? option.path : option.path.substr(section.size() + 1);
}

std::string Values(const RecipeOption& option, const RecipeNames& names) {
  const auto known = names.find(option.path);
  return known == names.end() ? DescribeValues(option) : fmt::format("one of {}", fmt::join(known->second, ", "));
}

std::string Facts(const RecipeOption& option, const RecipeNames& names, const std::string& separator) {
  std::string text = TypeName(option);
  for (const std::string& fact : {Values(option, names), DescribeDefault(option)}) {
    if (!fact.empty()) text += separator + fact;
  }
  return text;
}

// Breaks at blanks; every line but the first begins in column `indent`.
std::string Wrapped(const std::string& text, std::size_t indent) {
  constexpr std::size_t kLineWidth = 118;
  std::string wrapped;
  std::size_t column = indent, begin = 0;
  while (begin < text.size()) {
    const auto end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (column > indent && column + 1 + word.size() > kLineWidth) {
      wrapped += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      wrapped += ' ';
      ++column;
    }
    wrapped += word;
    column += word.size();
    begin = end + 1;
  }
  return wrapped;
}

std::string Code(const std::string& text) { return "`" + text + "`"; }

}  // namespace

std::string DumpRecipe(const Recipe& recipe) {
  std::string text = "bitplan: 1\n";
  for (const RecipeSection& section : RecipeSections()) text += DumpSection(section.name, recipe);
  return text;
}

std::string DumpRecipeSection(const Recipe& recipe, const std::string& section) {
  for (const RecipeSection& known : RecipeSections()) {
    if (!section.empty() && known.name == section) return DumpSection(section, recipe);
  }
  throw Error(ErrorKind::kInternal, "a recipe has no section '" + section + "'");
}

std::string RecipeHelp(const RecipeNames& names) {
  constexpr std::size_t kHelpColumn = 24;
  std::string text =
      "A recipe describes one whole run. Its first line is 'bitplan: 1'; --set key.path=value overrides a key.\n";
  for (const RecipeSection& section : RecipeSections()) {
    text += fmt::format("\n{}\n", section.name.empty() ? section.help : section.name + ": " + section.help);
    for (const RecipeOption& option : RecipeOptions()) {
      if (SectionOf(option) != section.name) continue;
      text += fmt::format("  {:<20}  {}\n{:{}}{}\n", KeyInSection(option), Wrapped(option.help, kHelpColumn), "",
                          kHelpColumn, Wrapped(fmt::format("({})", Facts(option, names, "; ")), kHelpColumn));
    }
  }
  return text;
}

std::string RecipeHelpMarkdown(const RecipeNames& names) {
  std::string text =
      "# Recipe\n\n"
      "A recipe is a YAML file that describes one whole run: `bitplan run recipes/lenet-mnist.yaml`. Its first line "
      "is\n"
      "`bitplan: 1`, the version of the format. `--set key.path=value` overrides one key, or a whole section, from "
      "the\n"
      "command line: `--set allocate.budget.average_bits=1.25`. Unknown keys and values out of range are errors.\n\n"
      "This page is what `bitplan help recipe` prints, and comes from the same table.\n";
  for (const RecipeSection& section : RecipeSections()) {
    text +=
        fmt::format("\n## {}\n\n{}\n\n", section.name.empty() ? "Keys of the root" : Code(section.name), section.help);
    text += "| key | meaning | type | values | default |\n|---|---|---|---|---|\n";
    for (const RecipeOption& option : RecipeOptions()) {
      if (SectionOf(option) != section.name) continue;
      text += fmt::format("| {} | {} | {} | {} | {} |\n", Code(KeyInSection(option)), option.help, TypeName(option),
                          Values(option, names), DescribeDefault(option));
    }
  }
  return text;
}

std::vector<RecipeKeyWords> RecipeWords(const RecipeNames& names) {
  std::vector<RecipeKeyWords> keys;
  for (const RecipeOption& option : RecipeOptions()) {
    const auto known = names.find(option.path);
    RecipeKeyWords key{option.path, known == names.end() ? option.choices : known->second};
    if (std::holds_alternative<FieldOf<bool>>(option.field)) key.words = {"true", "false"};
    keys.push_back(std::move(key));
  }
  return keys;
}

}  // namespace bitplan
