#include "bitplan/io/recipe.h"

#include "fuzz/targets.h"

namespace bitplan::fuzz {

void FuzzRecipe(std::string_view bytes) {
  const Recipe recipe = LoadRecipe(FileOf("recipe.yaml", bytes), {});
  (void)DumpRecipe(recipe);
}

}  // namespace bitplan::fuzz
