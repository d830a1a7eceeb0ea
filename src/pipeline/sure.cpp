#include "bitplan/pipeline/sure.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "bitplan/core/constraints.h"
#include "bitplan/core/error.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
namespace {

// Where bins begin. The last one holds what every repetition gave.
constexpr double kBinEdges[] = {0.0, 0.5, 0.7, 0.85, 0.95, 1.0};

// Of the answers of all seeds at one budget, [seeds].
using AtBudget = std::vector<const SureAnswer*>;

// Of a confidence, the place of its bin in kBinEdges.
std::size_t BinOf(double sure) {
  return static_cast<std::size_t>(std::upper_bound(std::begin(kBinEdges), std::end(kBinEdges), sure) -
                                  std::begin(kBinEdges)) -
         1;
}

// The statements that `counts` picks by their confidence.
template <typename Counts>
SureBin ReturnedOf(const std::vector<AtBudget>& budgets, const std::vector<std::size_t>& layers, Counts counts) {
  const std::size_t seeds = budgets.front().size();
  std::vector<double> statements(seeds, 0.0);
  std::vector<std::vector<double>> returned(seeds, std::vector<double>(seeds, 0.0));
  SureBin bin;
  for (const AtBudget& answers : budgets) {
    for (std::size_t s = 0; s < seeds; ++s) {
      for (const std::size_t l : layers) {
        const double sure = answers[s]->confidence[l];
        if (!counts(sure)) continue;
        ++bin.widths;
        bin.stated += sure;
        statements[s] += 1.0;
        for (std::size_t t = 0; t < seeds; ++t) {
          returned[s][t] += answers[t]->bits[l] == answers[s]->bits[l] ? 1.0 : 0.0;
        }
      }
    }
  }
  if (bin.widths == 0) return bin;
  bin.stated /= static_cast<double>(bin.widths);
  bin.returned = ShareOverPairs(statements, returned);
  return bin;
}

}  // namespace

SureReport CheckSure(const SureOptions& options, ProgressSink& progress) {
  StageChain chain(options.recipe, progress);
  SureReport report;
  report.model = chain.Model().name;
  report.allocator = chain.recipe().allocate.allocator;
  report.budgets = chain.recipe().compare.budgets;
  if (report.budgets.empty()) {
    throw Error(ErrorKind::kUsage, "compare.budgets is empty; give average bits to allocate at");
  }
  const auto first = chain.recipe().CalibrationSeed();
  for (int s = 0; s <= options.repeats; ++s) report.seeds.push_back(first + static_cast<std::uint64_t>(s));
  const Budget asked = chain.recipe().allocate.budget;
  for (const auto seed : report.seeds) {
    progress.Info(fmt::format("calibration seed {}, {} of {}", seed, seed - first + 1, report.seeds.size()));
    chain.UseCalibrationSeed(seed);
    for (const double budget : report.budgets) {
      chain.UseBudget(asked.WithAverageBits(budget));
      auto solution = chain.Solve();
      if (solution.confidence.empty()) {
        throw Error(ErrorKind::kUsage,
                    fmt::format("{} states no confidence on metric {} with allocate.draws {}; give "
                                "allocate.draws 1 or more",
                                report.allocator, chain.recipe().sensitivity.metric, chain.recipe().allocate.draws));
      }
      report.answers.push_back({seed, budget, std::move(solution.bits), std::move(solution.confidence)});
    }
  }
  const auto& table = chain.Table();
  const auto fixed = Constrain(table, chain.recipe().allocate).fixed_bits;
  std::vector<std::size_t> free;
  for (std::size_t l = 0; l < fixed.size(); ++l) {
    if (fixed[l] >= 0) continue;
    free.push_back(l);
    report.layers.push_back(table.units[l].name);
  }
  if (free.empty()) throw Error(ErrorKind::kUsage, "allocate.pins and allocate.exclude leave no layer a choice");
  std::vector<AtBudget> budgets(report.budgets.size());
  for (std::size_t a = 0; a < report.answers.size(); ++a) {
    budgets[a % budgets.size()].push_back(&report.answers[a]);
  }
  for (std::size_t b = 0; b < std::size(kBinEdges); ++b) {
    auto bin = ReturnedOf(budgets, free, [&](double sure) { return BinOf(sure) == b; });
    bin.low = kBinEdges[b];
    if (b + 1 < std::size(kBinEdges)) bin.high = kBinEdges[b + 1];
    if (bin.widths > 0) report.bins.push_back(bin);
  }
  report.all = ReturnedOf(budgets, free, [](double) { return true; });
  report.stages = chain.statuses();
  return report;
}

}  // namespace bitplan::pipeline
