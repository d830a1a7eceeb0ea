// What can be checked before any work is done, and where the files of a recipe lie.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/choice.h"
#include "bitplan/core/options.h"
#include "bitplan/pipeline/options.h"

namespace bitplan::pipeline {

// The value of quantizer.exportable that restricts nothing.
inline constexpr char kNoFormat[] = "none";

// Looks up every name in the recipe: Error(kUsage) with the known names and the nearest one.
void CheckNames(const Recipe& recipe);

// With every name looked up, and what says the same as a default left out.
[[nodiscard]] Recipe LoadCheckedRecipe(const RecipeOptions& options);

// Error(kUsage) that names `command` when the recipe's task is not classification.
void RequireClassification(const Recipe& recipe, const std::string& command);
// Error(kUsage) where the recipe has several widths of activations, among which only SolvePairs chooses. `what`: asks.
void RequireOneActivationWidth(const Recipe& recipe, const std::string& what);
// Error(kUsage) where the options do not have both widths of the pair.
void RequirePair(const Format& pair, const AllocateOptions& options);

// The first folder that holds the file; an absolute path is taken as it is. Error(kNotFound) that says where `what` was
// looked for.
[[nodiscard]] std::filesystem::path FindInFolders(const std::string& file,
                                                  const std::vector<std::filesystem::path>& folders,
                                                  const std::string& what);

// "resnet20_cifar10" of "models/resnet20_cifar10.ts.pt".
[[nodiscard]] std::string ModelNameOf(const std::filesystem::path& file);

// The output folder: `options.out`, or out/<recipe name>. Error(kUsage) when the recipe, its model or a data file of it
// lies there under a name that bitplan writes.
[[nodiscard]] std::filesystem::path CheckedFolder(const RecipeOptions& options, const Recipe& recipe);

}  // namespace bitplan::pipeline
