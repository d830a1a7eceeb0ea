// The lists of all rooms, as a recipe can name their entries.
#pragma once

#include "bitplan/io/recipe.h"

namespace bitplan::pipeline {

// Of every recipe key that names an entry of a list (architecture, data set, allocator, ...) all names of that list.
[[nodiscard]] RecipeNames KnownNames();

}  // namespace bitplan::pipeline
