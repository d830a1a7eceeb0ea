#include "cli/arguments.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace bitplan::cli {
namespace {

void DeclareOutput(CLI::App& app, Arguments& arguments) {
  app.add_option("--data", arguments.recipe.data, "data folder (default: $BITPLAN_DATA, else data/)")
      ->type_name(kFolder);
  app.add_option("--threads", arguments.threads, "threads (default: all cores)")->check(CLI::Range(1, 4096));
  app.add_option("--device", arguments.device, "auto, cpu or cuda (default: auto)");
  app.add_flag("--quiet", arguments.quiet, "no progress on stderr");
  app.add_flag("--json", arguments.json, "machine-readable result on stdout");
}

// "key.path=value", and no file of that name.
bool IsOverride(const std::string& word) {
  const auto equals = word.find('=');
  if (equals == 0 || equals == std::string::npos) return false;
  const auto in_key = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.'; };
  std::error_code ignored;
  return std::isalpha(static_cast<unsigned char>(word.front())) != 0 &&
         std::all_of(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(equals), in_key) &&
         !std::filesystem::exists(word, ignored);
}

}  // namespace

const char* DefaultDataFolder() {
  const char* folder = std::getenv("BITPLAN_DATA");
  return folder != nullptr && *folder != '\0' ? folder : "data";
}

void DeclareRecipe(CLI::App& app, Arguments& arguments) {
  app.add_option("recipe", arguments.recipe.recipe, "recipe (YAML); 'bitplan help recipe' lists its keys")
      ->required()
      ->type_name(kFile);
  app.add_option("--out", arguments.recipe.out, "output folder (default: out/<recipe name>)")->type_name(kFolder);
  app.add_option("--set", arguments.recipe.overrides, "override a recipe key: key.path=value ...; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", arguments.seed, "override the recipe's seed");
  DeclareOutput(app, arguments);
}

void DeclareAllocate(CLI::App& app, Arguments& arguments) {
  DeclareRecipe(app, arguments);
  app.add_option("--curve", arguments.curve,
                 "solve so many budgets from the narrowest to the widest plan, write no plan")
      ->check(CLI::Range(2, 100000));
}

void DeclareVerify(CLI::App& app, Arguments& arguments) {
  DeclareRecipe(app, arguments);
  app.add_option("--plan", arguments.plan, "plan to measure (default: plan.yaml in the output folder)")
      ->type_name(kFile);
  app.add_option("--out-plan", arguments.out_plan, "where the verified plan is written (default: in place)")
      ->type_name(kFile);
  app.add_flag("--guard", arguments.guard, "keep one width for all layers when it is better on calibration images");
  app.add_flag("--transfer", arguments.transfer,
               "the plan may be for other weights of the same layers: take its widths for this model");
  app.add_option("--against", arguments.against, "another plan for the same model, compared on the same samples")
      ->type_name(kFile);
}

void DeclareCompare(CLI::App& app, Arguments& arguments) {
  DeclareRecipe(app, arguments);
  auto* sensitivity =
      app.add_flag("--sensitivity", arguments.sensitivity, "how well every metric predicts the cost of random plans");
  app.add_option("--metrics", arguments.rank.metrics, "with --sensitivity: these metrics only")
      ->delimiter(',')
      ->needs(sensitivity);
  app.add_option("--plans", arguments.rank.plans,
                 "with --sensitivity: how many (default: 200 random ones, 20 near a budget)")
      ->check(CLI::Range(3, 100000))
      ->needs(sensitivity);
  app.add_option("--images", arguments.rank.samples,
                 "with --sensitivity: training images that random plans are measured on (default: 2,000)")
      ->check(CLI::Range(1, 1000000))
      ->needs(sensitivity);
  app.add_option("--near", arguments.rank.near,
                 "with --sensitivity: instead, plans within 5 % of these average bits, as they are deployed")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->needs(sensitivity);
}

void DeclareSure(CLI::App& app, Arguments& arguments) {
  DeclareRecipe(app, arguments);
  app.add_option("--repeats", arguments.repeats, "calibration seeds beside the recipe's own (default: 8)")
      ->check(CLI::Range(2, 1000));
}

void DeclareList(CLI::App& app, Arguments& arguments) {
  app.add_option("recipe", arguments.recipe.recipe, "recipe whose output folder is listed; not needed with --out")
      ->type_name(kFile);
  app.add_option("--out", arguments.recipe.out, "output folder (default: out/<recipe name>)")->type_name(kFolder);
  app.add_option("--set", arguments.recipe.overrides, "override a recipe key: key.path=value ...; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--json", arguments.json, "machine-readable result on stdout");
}

void DeclareDiff(CLI::App& app, Arguments& arguments) {
  app.add_option("first", arguments.plan, "a plan")->required()->type_name(kFile);
  app.add_option("second", arguments.second, "another plan")->required()->type_name(kFile);
  app.add_flag("--json", arguments.json, "machine-readable result on stdout");
}

void DeclareImport(CLI::App& app, Arguments& arguments) {
  app.add_option("widths", arguments.widths, "names of layers with their bits: CSV, YAML or JSON")
      ->required()
      ->type_name(kFile);
  app.add_option("--recipe", arguments.recipe.recipe, "recipe (YAML) of the model that they are for")
      ->required()
      ->type_name(kFile);
  app.add_option("--out", arguments.recipe.out, "output folder (default: out/<recipe name>)")->type_name(kFolder);
  app.add_option("--out-plan", arguments.out_plan,
                 "where the plan is written (default: plan.yaml in the output folder)")
      ->type_name(kFile);
  app.add_option("--set", arguments.recipe.overrides, "override a recipe key: key.path=value ...; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", arguments.seed, "override the recipe's seed");
  DeclareOutput(app, arguments);
}

void DeclareExport(CLI::App& app, Arguments& arguments) {
  app.add_option("recipe", arguments.recipe.recipe, "recipe whose output folder is exported; not needed with --out")
      ->type_name(kFile);
  app.add_option("--to", arguments.format, "format: 'bitplan help formats' lists them")->required();
  app.add_option("--out", arguments.recipe.out, "output folder (default: out/<recipe name>)")->type_name(kFolder);
  app.add_option("--plan", arguments.plan, "plan to export, plans/NAME/plan.yaml (default: the newest)")
      ->type_name(kFile);
  app.add_option("--file", arguments.file, "where it is written (default: a name of the format, beside the plan)")
      ->type_name(kFile);
  app.add_option("--set", arguments.recipe.overrides, "override a recipe key: key.path=value ...; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--quiet", arguments.quiet, "no progress on stderr");
  app.add_flag("--json", arguments.json, "machine-readable result on stdout");
}

void DeclareInspect(CLI::App& app, Arguments& arguments) {
  app.add_option("model", arguments.model, "TorchScript or ONNX file, or the name of an architecture")
      ->required()
      ->type_name(kFile);
  app.add_option("--shape", arguments.shape,
                 "shape of one input, as in 3,32,32 (default: what an ONNX file states, else found by trying)")
      ->delimiter(',');
  DeclareOutput(app, arguments);
}

void DeclareMakeData(CLI::App& app, Arguments& arguments) {
  app.add_option("dataset", arguments.make_data.name, "ambiguous-mnist: ambiguous digits from MNIST in the data folder")
      ->required();
  app.add_option("--seed", arguments.make_data.seed, "seed of the data set (default: 1)");
  DeclareOutput(app, arguments);
}

void DeclareHelp(CLI::App& app, Arguments& arguments) {
  app.add_option("topic", arguments.topic, "a sub-command, or one of the topics that 'bitplan help' lists");
  app.add_option("shell", arguments.shell, "of the topic completion: bash or zsh");
  app.add_flag("--markdown", arguments.markdown, "the recipe reference as Markdown");
}

std::vector<std::string> SpreadOverrides(const std::vector<std::string>& words) {
  std::vector<std::string> spread;
  bool after_set = false;
  for (std::size_t w = 0; w < words.size(); ++w) {
    if (after_set && IsOverride(words[w])) {
      spread.insert(spread.end(), {"--set", words[w]});
      continue;
    }
    spread.push_back(words[w]);
    after_set = words[w].rfind("--set=", 0) == 0;
    if (words[w] == "--set" && w + 1 < words.size()) {
      spread.push_back(words[++w]);
      after_set = true;
    }
  }
  return spread;
}

}  // namespace bitplan::cli
