#include "bitplan/pipeline/curve.h"

#include <algorithm>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/error.h"
#include "pipeline/checks.h"
#include "pipeline/clock.h"
#include "pipeline/curve_points.h"
#include "pipeline/front.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {
std::vector<CurvePoint> CurvePoints(StageChain& chain, const AllocationProblem& table, AllocateOptions allocate,
                                    int count) {
  const auto [low, high] = NarrowestAndWidest(table, allocate, AverageBits());
  const Budget asked = allocate.budget;
  std::vector<CurvePoint> points;
  for (int i = 0; i < count; ++i) {
    const double average_bits = low + (high - low) * i / std::max(1, count - 1);
    allocate.budget = asked.WithAverageBits(average_bits);
    Allocation answer;
    try {
      answer = bitplan::Allocate(table, allocate, chain.recipe().CalibrationSeed());
    } catch (const Error& error) {
      // The other limits need not leave a plan with so few bits: narrow weights may take longer.
      if (error.kind() != ErrorKind::kInfeasible || asked.Find(Latency()) == nullptr) throw;
      continue;
    }
    CurvePoint point{.budget = average_bits,
                     .achieved = chain.Achieved(answer.bits, answer.predicted_loss_rise),
                     .shadow_price = answer.shadow_prices.empty() ? 0.0 : answer.shadow_prices.front(),
                     .bits = answer.bits};
    point.achieved.optimality_gap = answer.optimality_gap();
    points.push_back(std::move(point));
  }
  return points;
}

CurveReport SolveCurve(const RecipeOptions& options, int count, ProgressSink& progress) {
  StageChain chain(options, progress);
  const auto& allocate = chain.recipe().allocate;
  RequireOneActivationWidth(chain.recipe(), "a curve");
  const auto& allocator = FindAllocator(allocate.allocator);
  if (allocator.needs_oracle) {
    throw Error(ErrorKind::kUsage, "allocate.allocator " + allocate.allocator +
                                       " learns from the network anew for every budget; take another one for a curve, "
                                       "or `bitplan compare` with a few budgets");
  }
  const auto& table = chain.Table(chain.MetricOf(allocator));
  CurveReport report{.folder = chain.folder().path(), .model = chain.Model().name, .allocator = allocator.name};
  for (const auto& unit : table.units) report.layers.push_back(unit.name);
  const auto start = Clock::now();
  report.points = CurvePoints(chain, table, allocate, count);
  report.milliseconds = 1e3 * SecondsSince(start);
  report.notes = Oddities(Plan{}, {.table = &table});
  report.stages = chain.statuses();
  return report;
}

}  // namespace bitplan::pipeline
