#include "cli/commands.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/recipe.h"
#include "bitplan/pipeline/bayes.h"
#include "bitplan/pipeline/compare.h"
#include "bitplan/pipeline/curve.h"
#include "bitplan/pipeline/diff.h"
#include "bitplan/pipeline/export.h"
#include "bitplan/pipeline/import.h"
#include "bitplan/pipeline/inspect.h"
#include "bitplan/pipeline/list.h"
#include "bitplan/pipeline/make_data.h"
#include "bitplan/pipeline/measure_curve.h"
#include "bitplan/pipeline/names.h"
#include "bitplan/pipeline/rank.h"
#include "bitplan/pipeline/run.h"
#include "bitplan/pipeline/stages.h"
#include "bitplan/pipeline/sure.h"
#include "cli/arguments.h"
#include "cli/completion.h"
#include "cli/console.h"
#include "cli/processor.h"
#include "cli/render.h"
#include "io/json_text.h"

namespace bitplan::cli {
namespace {

struct Command {
  const char* name;
  const char* help;
  void (*declare)(CLI::App& app, Arguments& arguments);
  void (*run)(const Arguments& arguments, CLI::App& program);
};

// A result that cannot be written is a failure: a full disk behind stdout must not look like success.
void Print(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!written) throw Error(ErrorKind::kIo, "cannot write the result to standard output");
}

template <typename Report>
void PrintReport(const Report& report, const Arguments& arguments) {
  Print(arguments.json ? JsonText(Json(report), 2) + "\n" : Text(report));
}

void RunCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  PrintReport(pipeline::Run(arguments.recipe, console), arguments);
}

void TrainCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  PrintReport(pipeline::Train(arguments.recipe, console), arguments);
}

void PosteriorCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  PrintReport(pipeline::EstimatePosterior(arguments.recipe, console), arguments);
}

void AllocateCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  if (arguments.curve > 0)
    return PrintReport(pipeline::SolveCurve(arguments.recipe, arguments.curve, console), arguments);
  PrintReport(pipeline::Allocate(arguments.recipe, console), arguments);
}

void VerifyCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  const pipeline::VerifyPlanOptions options = {arguments.recipe,  arguments.plan,  arguments.out_plan,
                                               arguments.against, arguments.guard, arguments.transfer};
  PrintReport(pipeline::Verify(options, console), arguments);
}

void ListCommand(const Arguments& arguments, CLI::App&) {
  PrintReport(pipeline::ListPlans(arguments.recipe), arguments);
}

void DiffCommand(const Arguments& arguments, CLI::App&) {
  PrintReport(pipeline::DiffPlans(arguments.plan, arguments.second), arguments);
}

void ImportCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  PrintReport(pipeline::ImportPlan({arguments.recipe, arguments.widths, arguments.out_plan}, console), arguments);
}

void ExportCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  PrintReport(pipeline::Export({arguments.recipe, arguments.format, arguments.plan, arguments.file}, console),
              arguments);
}

void InspectCommand(const Arguments& arguments, CLI::App&) {
  PrintReport(pipeline::Inspect({arguments.model, arguments.recipe.data, arguments.shape}), arguments);
}

void MakeDataCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  auto options = arguments.make_data;
  options.data = arguments.recipe.data;
  PrintReport(pipeline::MakeData(options, console), arguments);
}

void CompareCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  if (!arguments.sensitivity) return PrintReport(pipeline::Compare(arguments.recipe, console), arguments);
  auto options = arguments.rank;
  options.recipe = arguments.recipe;
  PrintReport(pipeline::RankMetrics(options, console), arguments);
}

void CurveCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  PrintReport(pipeline::MeasureCurve(arguments.recipe, console), arguments);
}

void SureCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  PrintReport(pipeline::CheckSure({arguments.recipe, arguments.repeats}, console), arguments);
}

void BayesCommand(const Arguments& arguments, CLI::App&) {
  Console console(arguments.quiet);
  WarnWhenBlasIsSlow(console);
  PrintReport(pipeline::Bayes(arguments.recipe, console), arguments);
}

void HelpCommand(const Arguments& arguments, CLI::App& program);

constexpr Command kCommands[] = {
    {"run", "train or load a model, plan its bits, verify the plan", DeclareRecipe, RunCommand},
    {"inspect", "layers, shapes, weights, multiply-accumulates of a model", DeclareInspect, InspectCommand},
    {"train", "train the recipe's architecture", DeclareRecipe, TrainCommand},
    {"posterior", "estimate the standard deviation of every weight", DeclareRecipe, PosteriorCommand},
    {"allocate", "choose the bits of every layer within the budget", DeclareAllocate, AllocateCommand},
    {"verify", "measure a plan, also one edited by hand", DeclareVerify, VerifyCommand},
    {"list", "the plans of an output folder, with their figures", DeclareList, ListCommand},
    {"diff", "what one plan does otherwise than another", DeclareDiff, DiffCommand},
    {"import", "widths that another tool chose, as a plan that 'verify' takes", DeclareImport, ImportCommand},
    {"export", "the quantized network in another form, one of 'help formats'", DeclareExport, ExportCommand},
    {"compare", "allocators or sensitivity metrics against each other", DeclareCompare, CompareCommand},
    {"curve", "accuracy against a resource, measured from the narrowest to the widest plan, with a page to look at",
     DeclareRecipe, CurveCommand},
    {"sure", "whether widths called sure come again with other calibration data, at compare.budgets", DeclareSure,
     SureCommand},
    {"bayes", "train, quantize and measure Bayesian networks", DeclareRecipe, BayesCommand},
    {"make-data", "make a data set that is not fetched: ambiguous-mnist", DeclareMakeData, MakeDataCommand},
    {"help", "help on a sub-command or a topic", DeclareHelp, HelpCommand},
};

std::vector<std::string> CommandNames() {
  std::vector<std::string> names;
  for (const auto& command : kCommands) names.emplace_back(command.name);
  return names;
}

struct Topic {
  const char* name;
  const char* help;
  std::string (*text)(const Arguments& arguments, const CLI::App& program);
};

std::string CompletionScript(const Arguments& arguments, const CLI::App& program);

constexpr Topic kTopics[] = {
    {"recipe", "every key of a recipe, with its unit, range, names and default",
     [](const Arguments& arguments, const CLI::App&) {
       const auto names = pipeline::KnownNames();
       return arguments.markdown ? RecipeHelpMarkdown(names) : RecipeHelp(names);
     }},
    {"plan", "every key of a plan", [](const Arguments&, const CLI::App&) { return PlanHelp(); }},
    {"allocators", "who can choose the bits: what each does, reads and can be told",
     [](const Arguments&, const CLI::App&) { return AllocatorsHelp(); }},
    {"formats", "what 'bitplan export' can write", [](const Arguments&, const CLI::App&) { return ExportersHelp(); }},
    {"completion", "a script that completes command lines in bash or zsh: help completion bash", CompletionScript},
};

std::string TopicsHelp() {
  std::string text = "Topics of 'bitplan help':";
  for (const Topic& topic : kTopics) text += fmt::format("\n  {:<26}  {}", topic.name, topic.help);
  return text;
}

// Words at options and arguments that take one of a list.
std::vector<std::string> WordsFor(const std::string& command, const std::string& name) {
  const auto known = pipeline::KnownNames();
  if (name == "--device") return {"auto", "cpu", "cuda"};
  if (name == "--metrics") return known.at("sensitivity.metric");
  if (name == "--to") {
    std::vector<std::string> formats;
    for (const Exporter& exporter : Exporters()) formats.emplace_back(exporter.name);
    return formats;
  }
  if (name == "model") return known.at("model.architecture");
  if (name == "dataset") return pipeline::MakeDataNames();
  if (command == "help" && name == "shell") return {"bash", "zsh"};
  if (command == "help" && name == "topic") {
    auto topics = CommandNames();
    for (const Topic& topic : kTopics) topics.emplace_back(topic.name);
    return topics;
  }
  return {};
}

std::string CompletionScript(const Arguments& arguments, const CLI::App& program) {
  std::vector<CompletionCommand> commands;
  for (const auto& command : kCommands) {
    CompletionCommand entry{command.name, command.help, {}, {}};
    for (const CLI::Option* option : program.get_subcommand(command.name)->get_options()) {
      const std::string name = option->get_positional()       ? option->get_name()
                               : option->get_lnames().empty() ? ""
                                                              : "--" + option->get_lnames().front();
      const std::string type = option->get_type_name();
      const CompletionValue value{WordsFor(command.name, name), type == kFile     ? CompletionValue::Paths::kFiles
                                                                : type == kFolder ? CompletionValue::Paths::kFolders
                                                                                  : CompletionValue::Paths::kNone};
      if (option->get_positional()) {
        entry.arguments.push_back(value);
      } else if (!name.empty()) {
        entry.options.push_back({name, option->get_description(), option->get_expected_max() > 0, value});
      }
    }
    commands.push_back(std::move(entry));
  }
  std::vector<CompletionKey> keys;
  for (const auto& key : RecipeWords(pipeline::KnownNames())) keys.push_back({key.path, key.words});
  if (arguments.shell == "bash") return BashCompletion(commands, keys);
  if (arguments.shell == "zsh") return ZshCompletion(commands, keys);
  throw Error(ErrorKind::kUsage, arguments.shell.empty()
                                     ? "help completion: name the shell, bash or zsh"
                                     : UnknownNameMessage("shell", arguments.shell, {"bash", "zsh"}));
}

void HelpCommand(const Arguments& arguments, CLI::App& program) {
  if (arguments.topic.empty()) {  // program.help() would be that of `help` itself, the chosen sub-command
    return Print(program.get_formatter()->make_help(&program, program.get_name(), CLI::AppFormatMode::Normal));
  }
  for (const Topic& topic : kTopics) {
    if (arguments.topic == topic.name) return Print(topic.text(arguments, program));
  }
  const auto commands = CommandNames();
  if (std::find(commands.begin(), commands.end(), arguments.topic) == commands.end()) {
    throw Error(ErrorKind::kUsage, UnknownNameMessage("help topic", arguments.topic, WordsFor("help", "topic")));
  }
  Print(program.get_subcommand(arguments.topic)->help(program.get_name()));
}

}  // namespace

int Main(std::vector<std::string> words) {
  words = SpreadOverrides(words);
  Arguments arguments;
  arguments.recipe.data = DefaultDataFolder();
  CLI::App program("How many bits every layer of a trained network needs.", "bitplan");
  program.set_version_flag("--version", std::string("bitplan ") + BITPLAN_VERSION);
  program.require_subcommand(1);
  for (const auto& command : kCommands) command.declare(*program.add_subcommand(command.name, command.help), arguments);
  program.footer(TopicsHelp());  // sub-commands that are added later would show it too

  const auto names = CommandNames();
  if (!words.empty() && words.front().rfind('-', 0) != 0 &&
      std::find(names.begin(), names.end(), words.front()) == names.end()) {
    throw Error(ErrorKind::kUsage, UnknownNameMessage("sub-command", words.front(), names));
  }
  try {
    std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
    program.parse(words);
  } catch (const CLI::CallForHelp&) {
    Print(program.help());
    return 0;
  } catch (const CLI::CallForVersion&) {
    Print(program.version() + "\n");
    return 0;
  } catch (const CLI::ParseError& error) {
    throw Error(ErrorKind::kUsage, std::string(error.what()) + "; 'bitplan help' shows what there is");
  }
  if (!arguments.seed.empty()) arguments.recipe.overrides.push_back("seed=" + arguments.seed);
  UseDevice(arguments.device);
  UseThreads(arguments.threads);
  const auto name = program.get_subcommands().front()->get_name();
  const auto* command = std::find_if(std::begin(kCommands), std::end(kCommands),
                                     [&](const Command& candidate) { return candidate.name == name; });
  command->run(arguments, program);
  return 0;
}

}  // namespace bitplan::cli
