// quantile-inform: bits follow the posterior. Where the data leaves little uncertainty about a layer's weights the plan
// spends bits, where it leaves much it saves them.
//
// Mode `information`. The score of a unit is the q-quantile (options.quantile) over its weights of
//   log2(R_i / (sqrt(12) * sigma_i))   [bits],
// the width at which the rounding noise of weight i equals its posterior noise. Every unit gets the allowed width
// nearest to s_u + c, with one offset c for all. In the high-resolution limit, where the loss rise of a unit falls as
// 4^-bits, this is reverse water-filling: all units end with the same noise-to-posterior ratio.
// At low widths the rounding errors of a unit act together, and it needs 1/2 log2(coherence at its width) bits more
// than the score of single weights says (Unit::coherence); that correction is part of s_u where it was measured.
// Without it a ResNet-20 at 4 average bits loses half a point to a last convolution at two bits.
//
// The offset and the left-over in one sweep: as c grows from minus infinity, unit u steps from an allowed width to the
// next when s_u + c passes the midpoint of the two, that is at c = midpoint - s_u (never before its earlier steps). The
// steps of all units are taken in ascending order of that value (equal: fewer weights first, then by unit order) as
// long as they fit, of several limits all of them. The first that does not fit is where bisection would stop and fixes
// c. The sweep then goes on, and
// spends what is left on those steps that do fit: the next in line is always the unit whose s_u + c lies furthest above
// its width in proportion to the step (largest remainder). A unit whose step does not fit keeps its width: what is left
// only shrinks.
//
// Mode `rank`. Units are ordered by their certainty, the (1 - q)-quantile of log2(sigma), lowest first: as in mode
// `information` a share 1 - q of a unit's weights is surer than the one that decides. Dead weights, of which the data
// said nothing, have the largest sigma there is (kLeastShare in src/sensitivity/units.cpp), so they never make a unit
// look certain, and decide only where they are more than a share q of the unit: then it comes late. A unit stands in
// that order at the share t of all weights that lies before it, counting half of itself. The score is the ramp
//   s_u = h * (1 - 2 t),   h = min(average - narrowest, widest - average) + 1/2,
// average = the budget in bits per weight, of several limits the least. The order is so cut at quantiles of weight
// mass, one width per segment, the widths in use evenly spread around the average (an average of 3 over widths 1..8
// gives five segments of equal mass with 5, 4, 3, 2, 1 bits). Offset and left-over as above, with one more condition: a
// unit never has more bits than the one before it in the order.
//
// The allocator quantile-inform-rank is mode `rank` whatever options.mode says, so that a comparison holds both.
//
// States no bound, only the predicted loss rise of the table.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "allocators/select.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

double Percentile(const Unit& unit, const std::vector<double>& percentiles, double quantile) {
  if (percentiles.size() != static_cast<std::size_t>(kPercentiles)) {
    throw Error(ErrorKind::kUsage,
                fmt::format("quantile-inform has no posterior for layer '{}'; it needs sensitivity metric 'posterior'",
                            unit.name));
  }
  const double position = quantile * (kPercentiles - 1);
  const auto below = static_cast<std::size_t>(position);
  const double share = position - static_cast<double>(below);
  return share == 0.0 ? percentiles[below] : (1.0 - share) * percentiles[below] + share * percentiles[below + 1];
}

struct OffsetStep {
  double offset;  // c at which the unit leaves width `column` for the next
  std::int64_t weights;
  int unit;
  int column;

  bool operator<(const OffsetStep& other) const {
    return std::tie(offset, weights, unit, column) < std::tie(other.offset, other.weights, other.unit, other.column);
  }
};

struct SweepResult {
  std::vector<int> chosen;
  double offset = 0.0;
  bool all_widest = true;
};

// `by_coherence`: correct the scores for errors that act together. `predecessor`: the unit whose width a unit may not
// exceed, or -1; empty: no such condition.
SweepResult Sweep(const AllocationProblem& problem, const Budget& budget, const std::vector<double>& scores,
                  bool by_coherence, const std::vector<int>& predecessor) {
  const int units = static_cast<int>(problem.units.size());
  const int widths = static_cast<int>(problem.widths.size());
  std::vector<OffsetStep> steps;
  steps.reserve(static_cast<std::size_t>(units) * static_cast<std::size_t>(widths));
  for (int u = 0; u < units; ++u) {
    const std::vector<double>& coherence = problem.units[u].coherence;
    double offset = -std::numeric_limits<double>::infinity();
    for (int k = 0; k + 1 < widths; ++k) {
      const double midpoint = 0.5 * (problem.widths[k] + problem.widths[k + 1]);
      const double together = by_coherence && !coherence.empty() ? 0.5 * std::log2(coherence[k]) : 0.0;
      offset = std::max(offset, midpoint - scores[u] - together);
      steps.push_back({offset, problem.units[u].weights, u, k});
    }
  }
  std::sort(steps.begin(), steps.end());
  SweepResult result;
  result.chosen.assign(units, 0);
  Room room(problem, budget, result.chosen);
  for (const OffsetStep& step : steps) {
    int& column = result.chosen[step.unit];
    if (result.all_widest) result.offset = step.offset;
    if (step.column != column) continue;  // an earlier step of this unit did not fit
    const int before = predecessor.empty() ? -1 : predecessor[step.unit];
    const auto unit = static_cast<std::size_t>(step.unit);
    if (room.Fits(unit, column, column + 1) && (before < 0 || result.chosen[before] > column)) {
      room.Move(unit, column, column + 1);
      ++column;
    } else {
      result.all_widest = false;
    }
  }
  return result;
}

Allocation Finish(const AllocationProblem& problem, const Budget& budget, const SweepResult& sweep,
                  const std::string& note) {
  Allocation result = MakeAllocation(problem, budget, sweep.chosen);
  result.note = note;
  if (!sweep.all_widest) result.note += fmt::format("; shared offset {:+.3f} bits", sweep.offset);
  return result;
}

Allocation ByInformation(const AllocationProblem& problem, const Budget& budget, double quantile) {
  std::vector<double> scores;
  for (const Unit& unit : problem.units) scores.push_back(Percentile(unit, unit.score_percentiles, quantile));
  return Finish(problem, budget, Sweep(problem, budget, scores, true, {}), fmt::format("quantile {}", quantile));
}

Allocation ByRank(const AllocationProblem& problem, const Budget& budget, double quantile) {
  const std::size_t units = problem.units.size();
  std::vector<double> log_sigma;
  for (const Unit& unit : problem.units) {
    log_sigma.push_back(Percentile(unit, unit.log_sigma_percentiles, 1.0 - quantile));
  }
  std::vector<int> order(units);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return log_sigma[a] < log_sigma[b]; });

  const auto total = static_cast<double>(problem.total_weights());
  const double narrowest = problem.widths.front(), widest = problem.widths.back();
  double average = widest;
  for (const Limit& limit : budget.limits) {
    const double one_bit = CostOfOneBit(problem, limit.resource);
    if (one_bit <= 0.0) continue;
    average = std::min(average, std::clamp(static_cast<double>(Capacity(problem, limit)) / one_bit, narrowest, widest));
  }
  const double spread = std::min(average - narrowest, widest - average) + 0.5;

  std::vector<double> scores(units);
  std::vector<int> predecessor(units, -1);
  double before = 0.0;
  for (std::size_t i = 0; i < units; ++i) {
    const auto own = static_cast<double>(problem.units[order[i]].weights);
    scores[order[i]] = spread * (1.0 - 2.0 * (before + 0.5 * own) / total);
    before += own;
    if (i > 0) predecessor[order[i]] = order[i - 1];
  }
  return Finish(problem, budget, Sweep(problem, budget, scores, false, predecessor),
                fmt::format("rank by quantile {} of certainty, ramp of {:.3f} bits", quantile, 2.0 * spread));
}

double CheckedQuantile(const AllocateOptions& options) {
  if (options.quantile >= 0.0 && options.quantile <= 1.0) return options.quantile;
  throw Error(ErrorKind::kUsage, fmt::format("allocate.quantile is {}; it must be in 0..1", options.quantile));
}

}  // namespace

Allocation AllocateQuantileInform(const AllocatorInputs& inputs) {
  const double quantile = CheckedQuantile(inputs.options);
  const std::string& mode = inputs.options.mode;
  if (mode == "information") return ByInformation(inputs.problem, inputs.budget, quantile);
  if (mode == "rank") return ByRank(inputs.problem, inputs.budget, quantile);
  throw Error(ErrorKind::kUsage, UnknownNameMessage("allocate.mode", mode, {"information", "rank"}));
}

Allocation AllocateQuantileInformRank(const AllocatorInputs& inputs) {
  return ByRank(inputs.problem, inputs.budget, CheckedQuantile(inputs.options));
}

}  // namespace bitplan
