// What command lines take.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/pipeline/make_data.h"
#include "bitplan/pipeline/options.h"
#include "bitplan/pipeline/rank.h"
#include "bitplan/pipeline/sure.h"

namespace bitplan::cli {

struct Arguments {
  pipeline::RecipeOptions recipe;
  std::string seed, device = "auto", plan, out_plan, against, second, widths, model, topic, shell, format, file;
  std::vector<std::int64_t> shape;
  pipeline::RankOptions rank;
  pipeline::MakeDataOptions make_data;
  int threads = 0, curve = 0, repeats = pipeline::SureOptions{}.repeats;
  bool guard = false, transfer = false, quiet = false, json = false, markdown = false, sensitivity = false;
};

// How an option's value is named in the help; completion offers what the name says.
inline constexpr const char *kFile = "FILE", *kFolder = "FOLDER";

// $BITPLAN_DATA, else data/.
[[nodiscard]] const char* DefaultDataFolder();

// The options and arguments of a sub-command; most take those of DeclareRecipe.
void DeclareRecipe(CLI::App& app, Arguments& arguments);
void DeclareAllocate(CLI::App& app, Arguments& arguments);
void DeclareVerify(CLI::App& app, Arguments& arguments);
void DeclareCompare(CLI::App& app, Arguments& arguments);
void DeclareSure(CLI::App& app, Arguments& arguments);
void DeclareList(CLI::App& app, Arguments& arguments);
void DeclareDiff(CLI::App& app, Arguments& arguments);
void DeclareImport(CLI::App& app, Arguments& arguments);
void DeclareExport(CLI::App& app, Arguments& arguments);
void DeclareInspect(CLI::App& app, Arguments& arguments);
void DeclareMakeData(CLI::App& app, Arguments& arguments);
void DeclareHelp(CLI::App& app, Arguments& arguments);

// `--set A=1 B=2` is `--set A=1 --set B=2`, and what follows may still be the recipe.
[[nodiscard]] std::vector<std::string> SpreadOverrides(const std::vector<std::string>& words);

}  // namespace bitplan::cli
