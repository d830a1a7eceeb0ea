#include "bitplan/allocators/allocator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "allocators/select.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

std::vector<std::int64_t> CheapestCosts(const AllocationProblem& problem, BudgetKind kind) {
  std::vector<std::int64_t> costs;
  costs.reserve(problem.units.size());
  for (const Unit& unit : problem.units) {
    std::int64_t cheapest = std::numeric_limits<std::int64_t>::max();
    for (const int width : problem.widths) cheapest = std::min(cheapest, Cost(unit, width, kind));
    costs.push_back(cheapest);
  }
  return costs;
}

// "budget 0.5 average bits cannot be met: the cheapest plan needs 1; the blocking layers are ...; ... raise ... to 1".
std::string Certificate(const AllocationProblem& problem, const Budget& budget,
                        const std::vector<std::int64_t>& costs) {
  constexpr std::size_t kNamed = 3;
  const std::int64_t total = std::accumulate(costs.begin(), costs.end(), std::int64_t{0});
  const bool average = budget.kind == BudgetKind::kAverageBits;
  const std::string needed =
      average ? fmt::format("{}", static_cast<double>(total) / static_cast<double>(problem.total_weights()))
              : fmt::format("{}", total);
  std::vector<std::size_t> order;
  for (std::size_t u = 0; u < costs.size(); ++u) {
    if (costs[u] > 0) order.push_back(u);
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return costs[a] > costs[b]; });
  std::string blocking;
  const int narrowest = problem.widths.front();
  for (std::size_t i = 0; i < std::min(order.size(), kNamed); ++i) {
    const Unit& unit = problem.units[order[i]];
    blocking += fmt::format("{}{} ({} weights, at least {} bit{})", i == 0 ? "" : ", ", unit.name, unit.weights,
                            narrowest, narrowest == 1 ? "" : "s");
  }
  if (order.size() > kNamed) blocking += fmt::format(" and {} more", order.size() - kNamed);
  return fmt::format(
      "budget {} {} cannot be met: the cheapest plan needs {}; the blocking layers are {}; {}raise the budget to {}",
      budget.value, average ? "average bits" : "bytes", needed, blocking,
      narrowest > 0 ? "allow narrower widths in allocate.bits or " : "", needed);
}

void CheckBudget(const AllocationProblem& problem, const Budget& budget) {
  if (!std::isfinite(budget.value) || budget.value < 0.0) {
    throw Error(ErrorKind::kUsage, fmt::format("allocate.budget.{} is {}; it must be a number >= 0",
                                               BudgetName(budget.kind), budget.value));
  }
  const std::vector<std::int64_t> costs = CheapestCosts(problem, budget.kind);
  if (std::accumulate(costs.begin(), costs.end(), std::int64_t{0}) > Capacity(problem, budget)) {
    throw Error(ErrorKind::kInfeasible, Certificate(problem, budget, costs));
  }
}

// Columns of the table that allocate.bits asks for, ascending and without repetition.
std::vector<std::size_t> AllowedColumns(const std::vector<int>& widths, const std::vector<int>& bits) {
  std::vector<std::size_t> columns;
  for (const int width : bits) {
    const auto found = std::find(widths.begin(), widths.end(), width);
    if (found == widths.end()) {
      throw Error(ErrorKind::kUsage, fmt::format("allocate.bits holds {}, which the sensitivity table lacks; it has {}",
                                                 width, fmt::join(widths, ", ")));
    }
    columns.push_back(static_cast<std::size_t>(found - widths.begin()));
  }
  if (columns.empty()) throw Error(ErrorKind::kUsage, "allocate.bits is empty; it needs at least one width");
  std::sort(columns.begin(), columns.end());
  columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
  return columns;
}

std::vector<double> Selected(const std::vector<double>& row, const std::vector<std::size_t>& columns) {
  std::vector<double> selected;
  if (row.empty()) return selected;
  selected.reserve(columns.size());
  for (const std::size_t column : columns) selected.push_back(row[column]);
  return selected;
}

AllocationProblem Rearranged(const AllocationProblem& problem, const std::vector<std::size_t>& order,
                             const std::vector<std::size_t>& columns) {
  AllocationProblem result;
  for (const std::size_t column : columns) result.widths.push_back(problem.widths[column]);
  result.units.reserve(order.size());
  result.loss_rise.reserve(order.size());
  for (const std::size_t u : order) {
    result.units.push_back(problem.units[u]);
    result.units.back().coherence = Selected(problem.units[u].coherence, columns);
    result.loss_rise.push_back(Selected(problem.loss_rise[u], columns));
  }
  return result;
}

}  // namespace

double Allocation::optimality_gap() const {
  if (!has_bound) return -1.0;
  return std::max(0.0, predicted_loss_rise - lower_bound) /
         std::max(predicted_loss_rise, std::numeric_limits<double>::min());
}

Allocation MakeAllocation(const AllocationProblem& problem, BudgetKind kind, const std::vector<int>& chosen) {
  Allocation result;
  result.bits.reserve(chosen.size());
  for (std::size_t u = 0; u < chosen.size(); ++u) {
    const auto column = static_cast<std::size_t>(chosen[u]);
    result.bits.push_back(problem.widths[column]);
    result.cost += Cost(problem.units[u], problem.widths[column], kind);
    result.predicted_loss_rise += problem.loss_rise[u][column];
  }
  return result;
}

const Allocator& FindAllocator(const std::string& name) {
  std::vector<std::string> known;
  for (const Allocator& allocator : Allocators()) {
    if (name == allocator.name) return allocator;
    known.emplace_back(allocator.name);
  }
  throw Error(ErrorKind::kUsage, UnknownNameMessage("allocator", name, known));
}

Allocation Allocate(const AllocationProblem& problem, const AllocateOptions& options, std::uint64_t seed) {
  const Allocator& allocator = FindAllocator(options.allocator);
  problem.Validate();
  std::vector<std::size_t> order(problem.units.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return problem.units[a].name < problem.units[b].name; });
  const AllocationProblem sorted = Rearranged(problem, order, AllowedColumns(problem.widths, options.bits));
  CheckBudget(sorted, options.budget);

  Allocation answer = allocator.allocate(sorted, options.budget, options, seed);
  std::int64_t cost = 0;
  std::vector<int> bits(order.size());
  for (std::size_t u = 0; u < order.size(); ++u) {
    cost += Cost(sorted.units[u], answer.bits.at(u), options.budget.kind);
    bits[order[u]] = answer.bits[u];
  }
  const std::int64_t capacity = Capacity(sorted, options.budget);
  if (cost != answer.cost || cost > capacity) {
    throw Error(ErrorKind::kInternal, fmt::format("allocator '{}' states cost {}, its plan costs {}, the budget is {}",
                                                  allocator.name, answer.cost, cost, capacity));
  }
  answer.bits = std::move(bits);
  return answer;
}

}  // namespace bitplan
