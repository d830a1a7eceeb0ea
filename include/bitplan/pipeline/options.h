// What every sub-command that reads a recipe takes, and what every stage reports.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace bitplan::pipeline {

struct RecipeOptions {
  std::filesystem::path recipe;        // the YAML file
  std::vector<std::string> overrides;  // "key.path=value", applied in order
  std::filesystem::path out;           // output folder; empty: out/<recipe name>
  std::filesystem::path data;          // data folder, where the data sets and models of a recipe are looked for
};

struct StageStatus {
  std::string name;      // model, posterior, sensitivity, allocate, apply, verify
  bool reused = false;   // true: nothing had changed, the stage was not run
  double seconds = 0.0;  // of this run, or of the run that is reused
};

}  // namespace bitplan::pipeline
