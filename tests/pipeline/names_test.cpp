#include "bitplan/pipeline/names.h"

#include <cstdlib>
#include <filesystem>

#include "bitplan/allocators/allocator.h"
#include "bitplan/io/files.h"
#include "support/catch_torch.h"

using namespace bitplan;

TEST_CASE("docs/recipe.md is what the option table and the lists of all rooms say") {
  const auto file = std::filesystem::path(BITPLAN_SOURCE_DIR) / "docs" / "recipe.md";
  const auto page = RecipeHelpMarkdown(pipeline::KnownNames());
  if (std::getenv("BITPLAN_UPDATE_DOCS") != nullptr) WriteFileAtomically(file, page);
  INFO("after a change of the option table, a list or a default: BITPLAN_UPDATE_DOCS=1 writes the page anew");
  CHECK(ReadFile(file, "page") == page);
}

TEST_CASE("names are known of keys that a recipe has, and every allocator's options are such keys") {
  const auto words = RecipeWords(pipeline::KnownNames());
  const auto has = [&](const std::string& path) {
    return std::any_of(words.begin(), words.end(), [&](const RecipeKeyWords& key) { return key.path == path; });
  };
  for (const auto& [path, names] : pipeline::KnownNames()) {
    INFO(path);
    CHECK(has(path));
    CHECK_FALSE(names.empty());
  }
  for (const auto& allocator : Allocators()) {
    for (const char* option : allocator.options) {
      INFO(allocator.name << " " << option);
      CHECK(has(option));
    }
  }
}

TEST_CASE("the help on allocators tells of every one what it reads, and whose options are whose") {
  const auto help = AllocatorsHelp();
  for (const auto& allocator : Allocators()) {
    CHECK_THAT(help, ContainsSubstring(std::string("  ") + allocator.name + "\n      " + allocator.description));
    for (const char* option : allocator.options) CHECK_THAT(help, ContainsSubstring(option));
  }
  CHECK_THAT(help, ContainsSubstring("its own sensitivity table (metric hawq)"));
}
