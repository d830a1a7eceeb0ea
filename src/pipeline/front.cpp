#include "pipeline/front.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/error.h"

namespace bitplan::pipeline {
namespace {

// In the measure of Cost().
struct CostRange {
  std::int64_t low = 0, high = 0;
  std::int64_t weights = 0;  // of the layers that count

  void Add(const std::vector<std::int64_t>& costs) {
    low += *std::min_element(costs.begin(), costs.end());
    high += *std::max_element(costs.begin(), costs.end());
  }
};

// A limit that no plan reaches.
double Unlimited(const Resource& resource) { return resource.per_weight ? kFloatBits : 9e15 / resource.scale; }

AllocateOptions WithLimit(AllocateOptions options, const Resource& resource, double budget) {
  const Limit* const limit = options.budget.Find(resource);
  options.budget.Set(resource, limit == nullptr ? budget : std::min(budget, limit->value));
  return options;
}

CostRange RangeOfWidths(const AllocationProblem& table, AllocateOptions options, const Resource& resource) {
  options.budget = {resource, Unlimited(resource)};
  const auto constrained = Constrain(table, options);
  CostRange range{constrained.fixed_cost.front(), constrained.fixed_cost.front(), constrained.weights};
  for (const Unit& unit : constrained.free.units) {
    std::vector<std::int64_t> costs;
    for (const int width : constrained.free.widths) costs.push_back(Cost(unit, width, resource));
    range.Add(costs);
  }
  return range;
}

CostRange RangeOfPairs(StageChain& chain, AllocateOptions options, const Resource& resource) {
  options.budget = {resource, Unlimited(resource)};
  const StageChain::PairProblem pairs = chain.Pairs(options);
  CostRange range;
  for (std::size_t u = 0; u < pairs.layers.size(); ++u) {
    std::vector<std::int64_t> costs;
    bool left_alone = true;
    for (const Choice& choice : pairs.problem.units[u].choices) {
      costs.push_back(choice.cost.front());
      left_alone = left_alone && choice.format.weights > 8;
    }
    range.Add(costs);
    for (const std::size_t l : pairs.layers[u]) range.weights += left_alone ? 0 : chain.Model().layers[l].weights();
  }
  return range;
}

// Of activations at their narrowest and at their widest.
CostRange RangeOfPeak(StageChain& chain, const std::vector<int>& activation_bits, const std::string& what) {
  if (activation_bits.size() < 2) {
    throw Error(ErrorKind::kUsage,
                "widths of weights do not change activation_bytes: give several widths in "
                "allocate.activation_bits, or " +
                    what + " another allocate.budget.smallest");
  }
  const auto [low, high] = std::minmax_element(activation_bits.begin(), activation_bits.end());
  return {chain.PeakAt(*low), chain.PeakAt(*high), 1};
}

// In the unit of a limit.
std::pair<double, double> InUnits(const CostRange& range, const Resource& resource) {
  if (range.weights == 0 || range.high == 0) {
    throw Error(ErrorKind::kUsage, "no layer is left to plan: allocate.exclude takes them all");
  }
  const double per = resource.per_weight ? static_cast<double>(range.weights) : resource.scale;
  return {static_cast<double>(range.low) / per, static_cast<double>(range.high) / per};
}

}  // namespace

std::pair<double, double> NarrowestAndWidest(const AllocationProblem& table, const AllocateOptions& options,
                                             const Resource& resource) {
  return InUnits(RangeOfWidths(table, options, resource), resource);
}

const Resource& ResourceToSpare(const Recipe& recipe) {
  const AllocateOptions& allocate = recipe.allocate;
  if (!allocate.smallest.empty()) return FindResource(allocate.smallest);
  return allocate.activation_bits.size() > 1 ? FindResource("bops") : AverageBits();
}

Front::Front(StageChain& chain, const Resource& resource, const std::string& what)
    : chain_(chain), resource_(resource), pairs_(chain.recipe().allocate.activation_bits.size() > 1) {
  const AllocateOptions& allocate = chain.recipe().allocate;
  const Allocator& allocator = FindAllocator(allocate.allocator);
  if (allocator.needs_oracle) {
    throw Error(ErrorKind::kUsage, "allocate.allocator " + allocate.allocator +
                                       " learns from the network anew for every budget; take another one for " + what);
  }
  const CostRange range = resource.kind == ResourceKind::kPeak ? RangeOfPeak(chain, allocate.activation_bits, what)
                          : pairs_                             ? RangeOfPairs(chain, allocate, resource)
                                   : RangeOfWidths(chain.Table(chain.MetricOf(allocator)), allocate, resource);
  const auto [low, high] = InUnits(range, resource);
  high_ = high;
  low_ = std::max(low, 1e-3 * high);
}

std::vector<double> Front::Budgets(int count) const {
  std::vector<double> budgets;
  for (int i = 0; i < count; ++i) {
    const double share = count > 1 ? static_cast<double>(i) / (count - 1) : 1.0;
    double budget = low_ * std::pow(high_ / low_, share);
    if (i == 0) budget = low_;
    if (i == count - 1) budget = high_;
    // A limit is a whole number of the resource's measure; never below what the narrowest plan takes.
    budgets.push_back(resource_.per_weight ? std::ceil(1e6 * budget) / 1e6 : std::ceil(budget));
  }
  return budgets;
}

FrontPoint Front::At(double budget, const std::string& allocator) {
  const AllocateOptions kept = chain_.recipe().allocate;
  AllocateOptions options = WithLimit(kept, resource_, budget);
  if (!allocator.empty()) options.allocator = allocator;
  FrontPoint point{.budget = budget, .solution = {}, .plan = {}};
  if (pairs_) {
    point.solution = chain_.SolvePairs(options);
  } else {
    const auto& table = chain_.Table(chain_.MetricOf(FindAllocator(options.allocator)));
    const auto answer = bitplan::Allocate(table, options, chain_.recipe().CalibrationSeed());
    point.solution.bits = answer.bits;
    point.solution.choices = chain_.ChoicesFor(answer.bits);
    point.solution.predicted_loss_rise = answer.predicted_loss_rise;
    point.solution.optimality_gap = answer.optimality_gap();
    point.solution.shadow_prices = answer.shadow_prices;
    point.solution.note = answer.note;
  }
  // An error leaves the chain with the recipe's own options.
  struct Restore {
    StageChain& chain;
    const AllocateOptions& options;
    ~Restore() { chain.UseAllocation(options); }
  } const restore{chain_, kept};
  chain_.UseAllocation(options);
  point.plan = chain_.Draft(point.solution);
  return point;
}

std::vector<FrontPoint> Front::Along(const std::vector<double>& budgets, const std::string& allocator) {
  std::vector<FrontPoint> points;
  for (const double budget : budgets) {
    try {
      FrontPoint point = At(budget, allocator);
      if (allocator.empty()) least_feasible_ = std::min(least_feasible_, budget);
      const bool same = !points.empty() && points.back().solution.bits == point.solution.bits &&
                        points.back().solution.activation_bits == point.solution.activation_bits;
      if (!same) points.push_back(std::move(point));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) throw;
      if (!allocator.empty()) continue;
      ++infeasible_;
      refusal_ = error.what();
    }
  }
  return points;
}

}  // namespace bitplan::pipeline
