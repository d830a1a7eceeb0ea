#include "allocators/select.h"

#include <fmt/format.h>

#include <queue>
#include <utility>

#include "bitplan/core/counted.h"

namespace bitplan {
namespace {

struct GreedyStep {
  double ratio = 0.0;  // fall of the loss rise per cost; <= 0: no step
  std::size_t unit = 0;
  int to = 0;

  // Order of a priority queue: the best is the greatest.
  bool operator<(const GreedyStep& other) const {
    return ratio != other.ratio ? ratio < other.ratio : unit > other.unit;
  }
};

GreedyStep BestStep(const AllocationProblem& problem, const Resource& resource, std::int64_t left, std::size_t u,
                    int from) {
  GreedyStep best{.unit = u};
  const std::int64_t base = Cost(problem.units[u], problem.widths[from], resource);
  for (int to = from + 1; to < static_cast<int>(problem.widths.size()); ++to) {
    const std::int64_t cost = Cost(problem.units[u], problem.widths[to], resource) - base;
    if (cost > left) break;
    const double gain = problem.loss_rise[u][from] - problem.loss_rise[u][to];
    const double ratio = gain / static_cast<double>(std::max<std::int64_t>(cost, 1));
    if (ratio > best.ratio) {
      best.ratio = ratio;
      best.to = to;
    }
  }
  return best;
}

}  // namespace

Allocation MakeAllocation(const AllocationProblem& problem, const Resource& resource, const std::vector<int>& chosen) {
  Allocation result;
  result.bits.reserve(chosen.size());
  for (std::size_t u = 0; u < chosen.size(); ++u) {
    const auto column = static_cast<std::size_t>(chosen[u]);
    result.bits.push_back(problem.widths[column]);
    result.cost += Cost(problem.units[u], problem.widths[column], resource);
    result.predicted_loss_rise += problem.loss_rise[u][column];
  }
  return result;
}

Allocation MakeUniform(const AllocationProblem& problem, const Budget& budget) {
  const std::int64_t capacity = Capacity(problem, budget);
  Allocation best;
  for (int column = 0; column < static_cast<int>(problem.widths.size()); ++column) {
    Allocation candidate = MakeAllocation(problem, budget.resource, std::vector<int>(problem.units.size(), column));
    if (column > 0 && candidate.cost > capacity) break;
    best = std::move(candidate);
    best.note = "every layer at " + Counted(problem.widths[column], "bit");
  }
  return best;
}

std::vector<std::vector<KnapsackItem>> KnapsackClasses(const AllocationProblem& problem, const Resource& resource) {
  std::vector<std::vector<KnapsackItem>> classes(problem.units.size());
  for (std::size_t u = 0; u < classes.size(); ++u) {
    classes[u].reserve(problem.widths.size());
    for (std::size_t k = 0; k < problem.widths.size(); ++k) {
      classes[u].push_back({Cost(problem.units[u], problem.widths[k], resource), problem.loss_rise[u][k]});
    }
  }
  return classes;
}

Allocation SolveExactly(const AllocationProblem& problem, const Budget& budget) {
  const KnapsackSolution solution = SolveKnapsack(KnapsackClasses(problem, budget.resource), Capacity(problem, budget));
  Allocation result = MakeAllocation(problem, budget.resource, solution.chosen);
  result.has_bound = true;
  result.lower_bound = solution.optimal ? result.predicted_loss_rise : solution.lower_bound;
  result.shadow_price = solution.shadow_price;
  if (!solution.optimal) {
    result.note = fmt::format("stopped after {} states; the least predicted loss rise is between {:.6g} and {:.6g}",
                              solution.states, result.lower_bound, result.predicted_loss_rise);
  }
  return result;
}

std::int64_t StepCost(const AllocationProblem& problem, const Resource& resource, std::size_t unit, int column) {
  return Cost(problem.units[unit], problem.widths[column + 1], resource) -
         Cost(problem.units[unit], problem.widths[column], resource);
}

void SpendGreedily(const AllocationProblem& problem, const Resource& resource, std::int64_t left,
                   std::vector<int>& chosen) {
  std::priority_queue<GreedyStep> steps;
  const auto offer = [&](std::size_t u) {
    const GreedyStep step = BestStep(problem, resource, left, u, chosen[u]);
    if (step.ratio > 0.0) steps.push(step);
  };
  for (std::size_t u = 0; u < chosen.size(); ++u) offer(u);
  while (!steps.empty()) {
    const GreedyStep step = steps.top();
    steps.pop();
    const std::int64_t cost = Cost(problem.units[step.unit], problem.widths[step.to], resource) -
                              Cost(problem.units[step.unit], problem.widths[chosen[step.unit]], resource);
    if (cost <= left) {
      left -= cost;
      chosen[step.unit] = step.to;
    }
    offer(step.unit);  // its next step, or the best one that still fits
  }
}

}  // namespace bitplan
