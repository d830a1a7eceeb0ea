#include "bitplan/pipeline/export.h"

#include <fmt/format.h>

#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/recipe.h"
#include "bitplan/pipeline/run_folder.h"
#include "pipeline/checks.h"
#include "pipeline/plan_parts.h"

namespace bitplan::pipeline {
namespace {

namespace fs = std::filesystem;

bool IsThere(const fs::path& file) {
  std::error_code ignored;
  return fs::is_regular_file(file, ignored);
}

// Plan and network of a folder, compared with each other.
struct Exported {
  Plan plan;
  QuantizedNetwork network;
  fs::path torchscript;
  NetworkInput input = {};
};

Exported LoadExported(const fs::path& plan_file, const std::string& verify) {
  const auto text = ReadFile(plan_file, "plan");
  Exported result{ParsePlan(text, plan_file.string()), {}, plan_file.parent_path() / kNetworkFile, {}};
  const auto codes = plan_file.parent_path() / kCodesFile;
  for (const auto& file : {result.torchscript, codes}) {
    if (IsThere(file)) continue;
    throw Error(ErrorKind::kNotFound, file.string() + " is missing: " + plan_file.filename().string() +
                                          " was not applied here; " + verify + " does");
  }
  result.network = LoadQuantizedNetwork(codes);
  if (result.network.made_from != CodesKey(result.plan)) {
    throw Error(ErrorKind::kData, result.torchscript.string() + " is the network of another plan than " +
                                      plan_file.string() + "; " + verify + " writes that of this one");
  }
  try {
    AddOthers(result.network, LoadModule(result.torchscript));
  } catch (const Error& error) {
    throw Error(error.kind(), result.torchscript.string() + ": " + error.what() + "; " + verify + " writes both");
  }
  result.network.plan = text;
  result.input = std::exchange(result.network.input, {});
  return result;
}

// Settings change nothing about a plan that is there: those that it was not made with are refused.
void RequireOwnSettings(const RecipeOptions& options, const Plan& plan, const std::string& run) {
  if (options.overrides.empty() || options.recipe.empty()) return;
  if (Sha256Hex(DumpRecipe(LoadCheckedRecipe(options))) == plan.provenance.recipe_sha256) return;
  throw Error(
      ErrorKind::kUsage,
      fmt::format("export writes the plan that is there (budget {}, allocator {}), and that was not made by this "
                  "recipe with --set {}: leave --set out, or make that plan with {}",
                  BudgetText(plan.budget), plan.allocator, fmt::join(options.overrides, " "), run));
}

// A file of the run must not be overwritten by a name that was meant for something else.
void RefuseFileOfRun(const fs::path& target, const ExportOptions& options, const std::optional<RunFolder>& folder) {
  std::error_code ignored;
  if (!fs::exists(target, ignored)) return;
  bool own = false, exported = false;
  if (folder) {
    const auto name = fs::weakly_canonical(target).lexically_relative(fs::weakly_canonical(folder->path())).string();
    own = name == "manifest.json" || name == ".lock" || name == kPlanFile ||
          (name.rfind("..", 0) != 0 && folder->Wrote(name));
    const Exporter& exporter = FindExporter(options.format);
    exported = name == exporter.file || name == SecondFile(exporter, exporter.file);
  }
  const bool recipe = !options.recipe.recipe.empty() && fs::equivalent(target, options.recipe.recipe, ignored);
  // Of a plan in another folder as well.
  const fs::path beside = options.plan.parent_path();
  const bool plan = !options.plan.empty() && (fs::equivalent(target, options.plan, ignored) ||
                                              fs::equivalent(target, beside / kNetworkFile, ignored) ||
                                              fs::equivalent(target, beside / kCodesFile, ignored));
  if ((own && !exported) || recipe || plan) {
    throw Error(ErrorKind::kUsage, "--file " + target.string() + " is a file of the run; choose another name");
  }
}

// The second file of an exporter, and that it is another than the first.
fs::path SecondTarget(const Exporter& exporter, const fs::path& first) {
  const fs::path second = SecondFile(exporter, first);
  if (second == first) {
    throw Error(ErrorKind::kUsage, std::string("--file ") + first.string() + " has the ending of the second file of " +
                                       exporter.name + "; name the first, as in " + exporter.file);
  }
  return second;
}

using Writer = std::function<void(const fs::path& temporary)>;

}  // namespace

ExportReport Export(const ExportOptions& options, ProgressSink& progress) {
  const Exporter& exporter = FindExporter(options.format);
  if (options.recipe.out.empty() && options.recipe.recipe.empty()) {
    throw Error(ErrorKind::kUsage, "export needs a recipe, or an output folder with --out");
  }
  fs::path out = options.recipe.out;
  if (out.empty()) out = fs::path("out") / LoadRecipe(options.recipe.recipe, options.recipe.overrides).name;
  const std::string recipe = options.recipe.recipe.empty() ? "RECIPE" : options.recipe.recipe.string();
  const std::string where = options.recipe.out.empty() ? "" : " --out " + options.recipe.out.string();
  const fs::path plan_file = options.plan.empty() ? out / kPlanFile : options.plan;
  if (!IsThere(plan_file)) {
    throw Error(ErrorKind::kNotFound,
                "there is no plan " + plan_file.string() + "; `bitplan run " + recipe + where + "` makes one");
  }
  std::optional<RunFolder> folder;  // locked while its files are read; a plan from elsewhere needs none
  std::error_code ignored;
  if (fs::is_directory(out, ignored)) {
    folder.emplace(out, [&progress](const std::string& line) { progress.Warn(line); });
  }
  const std::string verify =
      options.plan.empty() ? "`bitplan verify " + recipe + where + "`" : "`bitplan run` with its budget and allocator";
  const Exported exported = LoadExported(plan_file, verify);
  if (options.plan.empty()) {
    RequireOwnSettings(options.recipe, exported.plan, "`bitplan run " + recipe + where + "` and these settings");
  }

  ExportReport report{.format = exporter.name,
                      .plan_file = plan_file,
                      .file = options.file.empty() ? plan_file.parent_path() / exporter.file : options.file,
                      .second_file = {},
                      .bytes = 0,
                      .stored_bytes = exported.network.payload_bytes(),
                      .float_bytes = exported.network.float_bytes()};
  report.second_file = SecondTarget(exporter, report.file);
  ExportFiles files{.first = {}, .second = {}, .name = report.file.filename().string()};
  const ExportInputs inputs{exported.network, exported.plan, exported.torchscript, exported.input};
  const bool own_plan = options.plan.empty() || (folder && fs::equivalent(options.plan, out / kPlanFile, ignored));
  const bool own_name = options.file.empty() && own_plan;
  const auto put = [&](const fs::path& target, const Writer& write) {
    if (own_name) return folder->Write(target.filename().string(), write);
    RefuseFileOfRun(target, options, folder);
    WriteFileAtomically(target, write);
  };
  const auto write_first = [&] {
    put(report.file, [&](const fs::path& temporary) {
      files.first = temporary;
      exporter.write(inputs, files);
    });
  };
  if (exporter.file == std::string(kNetworkFile) && fs::equivalent(report.file, exported.torchscript, ignored)) {
    // It is there already.
  } else if (report.second_file.empty()) {
    write_first();
  } else {
    // The first gets its name when both are whole, the second right after it.
    put(report.second_file, [&](const fs::path& temporary) {
      files.second = temporary;
      write_first();
    });
  }
  if (own_name && exporter.file != std::string(kNetworkFile)) {  // a later run tells whose plan it is of
    std::vector<std::string> names = {report.file.filename().string()};
    if (!report.second_file.empty()) names.push_back(report.second_file.filename().string());
    folder->Complete(ExportStage(exporter.name), {.input = CodesKey(exported.plan), .content = {}, .facts = "{}"},
                     names);
  }
  report.bytes = static_cast<std::int64_t>(fs::file_size(report.file));
  if (!report.second_file.empty()) report.bytes += static_cast<std::int64_t>(fs::file_size(report.second_file));
  return report;
}

}  // namespace bitplan::pipeline
