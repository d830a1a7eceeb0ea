#include "pipeline/run_page.h"

#include <algorithm>

#include "bitplan/allocators/allocator.h"
#include "bitplan/io/files.h"
#include "bitplan/report/run_page.h"
#include "pipeline/curve_points.h"
#include "pipeline/plan_parts.h"

namespace bitplan::pipeline {
namespace {

constexpr int kCurvePoints = 41;

// Who made the plan; null where the name is nobody's.
const Allocator* MakerOf(const Plan& plan) {
  const auto& known = Allocators();
  const auto found =
      std::find_if(known.begin(), known.end(), [&](const Allocator& one) { return one.name == plan.allocator; });
  return found == known.end() ? nullptr : &*found;
}

// The maker, or `exact` where that cannot be asked for many plans. `table`: that of the plan's prediction.
const Allocator& CurveAllocator(const Allocator* maker, const AllocationProblem& table) {
  const bool scores = std::none_of(table.units.begin(), table.units.end(),
                                   [](const Unit& unit) { return unit.score_percentiles.empty(); });
  const bool able = maker != nullptr && !maker->needs_oracle && !maker->random && (scores || !maker->needs_posterior);
  return able ? *maker : FindAllocator("exact");
}

std::vector<RunPageLayer> LayersOf(const AllocationProblem& table, const Plan& plan) {
  std::vector<RunPageLayer> layers;
  for (const PlanLayer& layer : plan.layers) {
    RunPageLayer& facts = layers.emplace_back();
    const auto unit =
        std::find_if(table.units.begin(), table.units.end(), [&](const Unit& one) { return one.name == layer.name; });
    if (unit == table.units.end()) continue;
    if (!unit->log_sigma_percentiles.empty()) facts.log2_sigma = unit->log_sigma_percentiles[kPercentiles / 2];
    const auto width = std::find(table.widths.begin(), table.widths.end(), layer.bits);
    if (width == table.widths.end()) continue;
    facts.predicted_rise = table.loss_rise[static_cast<std::size_t>(unit - table.units.begin())]
                                          [static_cast<std::size_t>(width - table.widths.begin())];
  }
  return layers;
}

}  // namespace

std::filesystem::path LeaveRunPage(StageChain& chain, const Plan& plan, const std::vector<std::string>& notes) {
  RunPage page;
  page.title = chain.recipe().name + ": bits of every layer";
  page.plan = plan;
  page.notes = notes;
  const Allocator* maker = MakerOf(plan);
  const std::string metric = maker == nullptr ? chain.recipe().sensitivity.metric : chain.MetricOf(*maker);
  const AllocationProblem& table = chain.Table(metric);
  page.layers = LayersOf(table, plan);
  const Allocator& allocator = CurveAllocator(maker, table);
  page.rise_unit = RiseUnit(metric);
  page.curve_allocator = allocator.name;
  auto allocate = chain.recipe().allocate;
  allocate.allocator = allocator.name;
  allocate.draws = 0;
  // A curve of the weights' widths alone would not be that of a plan which chooses those of activations too.
  const bool pairs = chain.recipe().allocate.activation_bits.size() > 1;
  for (const CurvePoint& point : CurvePoints(chain, table, allocate, pairs ? 0 : kCurvePoints)) {
    page.curve.push_back({point.achieved.average_bits, point.achieved.predicted_loss_rise});
  }
  auto& folder = chain.folder();
  const bool taken = std::filesystem::exists(folder.File("compare.json")) ||  // report.html is another command's
                     std::filesystem::exists(folder.File("bayes.json"));
  const std::string place = taken ? "run/" : "";
  const std::filesystem::path drawn = folder.File(".drawn");
  std::filesystem::create_directories(drawn);
  folder.Write(place + "report.html", RunPageHtml(page, drawn));
  for (const auto& entry : std::filesystem::directory_iterator(drawn)) {
    const std::string name = entry.path().filename().string();
    folder.Write(place + "plots/" + name, ReadFile(entry.path(), "drawing"));
  }
  std::filesystem::remove_all(drawn);
  return folder.File(place + "report.html");
}

}  // namespace bitplan::pipeline
