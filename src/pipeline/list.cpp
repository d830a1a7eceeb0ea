#include "bitplan/pipeline/list.h"

#include <algorithm>
#include <system_error>
#include <tuple>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/io/files.h"
#include "bitplan/io/plan.h"
#include "bitplan/io/recipe.h"
#include "pipeline/oddities.h"

namespace bitplan::pipeline {

ListReport ListPlans(const RecipeOptions& options) {
  namespace fs = std::filesystem;
  if (options.out.empty() && options.recipe.empty()) {
    throw Error(ErrorKind::kUsage, "list needs a recipe, or an output folder with --out");
  }
  ListReport report;
  report.folder = options.out;
  if (report.folder.empty()) report.folder = fs::path("out") / LoadRecipe(options.recipe, options.overrides).name;
  std::error_code error;
  if (!fs::is_directory(report.folder, error)) {
    throw Error(ErrorKind::kNotFound, "no output folder " + report.folder.string() + "; `bitplan run` makes one");
  }
  std::string newest;
  if (fs::is_regular_file(report.folder / "plan.yaml", error)) newest = ReadFile(report.folder / "plan.yaml", "plan");
  for (const auto& entry : fs::directory_iterator(report.folder / "plans", error)) {
    const auto file = entry.path() / "plan.yaml";
    std::error_code missing;
    if (!fs::is_regular_file(file, missing)) continue;
    try {
      const auto text = ReadFile(file, "plan");
      ListedPlan listed{ParsePlan(text, file.string()), file, {}, text == newest};
      const auto network = entry.path() / "quantized.pt";
      if (fs::is_regular_file(network, missing)) listed.quantized_file = network;
      report.plans.push_back(std::move(listed));
    } catch (const Error& failure) {
      report.unreadable.emplace_back(failure.what());
    }
  }
  const auto key = [](const ListedPlan& listed) {
    const auto& plan = listed.plan;
    std::vector<std::pair<std::string, double>> limits;
    for (const Limit& limit : plan.budget.limits) limits.emplace_back(LimitName(limit), limit.value);
    return std::tuple(plan.model.name, plan.model.sha256, limits, plan.allocator, listed.plan_file);
  };
  std::sort(report.plans.begin(), report.plans.end(),
            [&](const ListedPlan& one, const ListedPlan& other) { return key(one) < key(other); });
  std::sort(report.unreadable.begin(), report.unreadable.end());
  std::vector<NamedPlan> plans;
  for (const auto& listed : report.plans) {
    plans.push_back({listed.plan_file.parent_path().filename().string(), listed.plan});
  }
  report.notes = OdditiesOfMany(plans, {});
  return report;
}

}  // namespace bitplan::pipeline
