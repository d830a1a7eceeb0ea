#include "allocators/select.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <string>
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

GreedyStep BestStep(const AllocationProblem& problem, const Room& room, std::size_t u, int from) {
  GreedyStep best{.unit = u};
  for (int to = from + 1; to < static_cast<int>(problem.widths.size()); ++to) {
    if (!room.Fits(u, from, to)) break;  // no resource costs less at a wider width
    const double gain = problem.loss_rise[u][from] - problem.loss_rise[u][to];
    const double ratio = gain / room.Price(u, from, to);
    if (ratio > best.ratio) {
      best.ratio = ratio;
      best.to = to;
    }
  }
  return best;
}

bool KeepsAll(const std::vector<std::int64_t>& cost, const std::vector<std::int64_t>& capacities) {
  for (std::size_t r = 0; r < cost.size(); ++r) {
    if (cost[r] > capacities[r]) return false;
  }
  return true;
}

std::string Unproven(std::int64_t states, const Allocation& answer) {
  return fmt::format("stopped after {} states; the least predicted loss rise is between {:.6g} and {:.6g}", states,
                     answer.lower_bound, answer.predicted_loss_rise);
}

}  // namespace

Allocation MakeAllocation(const AllocationProblem& problem, const Budget& budget, const std::vector<int>& chosen) {
  Allocation result;
  result.bits.reserve(chosen.size());
  result.cost.assign(budget.limits.size(), 0);
  for (std::size_t u = 0; u < chosen.size(); ++u) {
    const auto column = static_cast<std::size_t>(chosen[u]);
    result.bits.push_back(problem.widths[column]);
    for (std::size_t r = 0; r < result.cost.size(); ++r) {
      result.cost[r] += Cost(problem.units[u], problem.widths[column], budget.limits[r].resource);
    }
    result.predicted_loss_rise += problem.loss_rise[u][column];
  }
  return result;
}

Allocation MakeUniform(const AllocationProblem& problem, const Budget& budget) {
  const std::vector<std::int64_t> capacities = Capacities(problem, budget);
  Allocation best;
  for (int column = 0; column < static_cast<int>(problem.widths.size()); ++column) {
    Allocation candidate = MakeAllocation(problem, budget, std::vector<int>(problem.units.size(), column));
    if (column > 0 && !KeepsAll(candidate.cost, capacities)) continue;
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

ChoiceProblem ChoicesOfWidths(const AllocationProblem& problem, const Budget& budget,
                              const std::vector<std::vector<double>>& values) {
  ChoiceProblem result;
  for (const Limit& limit : budget.limits) result.limits.push_back(ChoiceLimitOf(limit, Capacity(problem, limit)));
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    ChoiceUnit& unit = result.units.emplace_back(ChoiceUnit{problem.units[u].name, {}});
    for (std::size_t k = 0; k < problem.widths.size(); ++k) {
      Choice& choice = unit.choices.emplace_back(Choice{{problem.widths[k], kFloatBits}, values[u][k], {}});
      for (const Limit& limit : budget.limits) {
        choice.cost.push_back(Cost(problem.units[u], problem.widths[k], limit.resource));
      }
    }
  }
  return result;
}

Allocation SolveExactly(const AllocationProblem& problem, const Budget& budget) {
  if (budget.limits.size() > 1) {
    const ChoiceSolution solution = SolveChoices(ChoicesOfWidths(problem, budget, problem.loss_rise));
    Allocation result = MakeAllocation(problem, budget, solution.chosen);
    result.has_bound = true;
    result.lower_bound = solution.proven ? result.predicted_loss_rise : solution.lower_bound;
    result.shadow_prices = solution.prices;
    if (!solution.proven) result.note = Unproven(solution.states, result);
    return result;
  }
  const Limit& limit = budget.limits.front();
  const KnapsackSolution solution = SolveKnapsack(KnapsackClasses(problem, limit.resource), Capacity(problem, limit));
  Allocation result = MakeAllocation(problem, budget, solution.chosen);
  result.has_bound = true;
  result.lower_bound = solution.optimal ? result.predicted_loss_rise : solution.lower_bound;
  result.shadow_prices = {solution.shadow_price};
  if (!solution.optimal) result.note = Unproven(solution.states, result);
  return result;
}

Room::Room(const AllocationProblem& problem, const Budget& budget, const std::vector<int>& chosen)
    : problem_(problem), budget_(budget), left_(Capacities(problem, budget)) {
  const Allocation plan = MakeAllocation(problem, budget, chosen);
  for (std::size_t r = 0; r < left_.size(); ++r) {
    left_[r] -= plan.cost[r];
    share_.push_back(1.0 / static_cast<double>(std::max<std::int64_t>(left_[r], 1)));
  }
}

bool Room::Over() const {
  return std::any_of(left_.begin(), left_.end(), [](std::int64_t left) { return left < 0; });
}

std::int64_t Room::Step(std::size_t unit, int from, int to, std::size_t limit) const {
  const Resource& resource = budget_.limits[limit].resource;
  return Cost(problem_.units[unit], problem_.widths[static_cast<std::size_t>(to)], resource) -
         Cost(problem_.units[unit], problem_.widths[static_cast<std::size_t>(from)], resource);
}

bool Room::Fits(std::size_t unit, int from, int to) const {
  for (std::size_t r = 0; r < left_.size(); ++r) {
    if (Step(unit, from, to, r) > left_[r]) return false;
  }
  return true;
}

void Room::Move(std::size_t unit, int from, int to) {
  for (std::size_t r = 0; r < left_.size(); ++r) left_[r] -= Step(unit, from, to, r);
}

double Room::Price(std::size_t unit, int from, int to) const {
  if (left_.size() == 1) return static_cast<double>(std::max<std::int64_t>(Step(unit, from, to, 0), 1));
  double price = 0.0;
  for (std::size_t r = 0; r < left_.size(); ++r) {
    price += share_[r] * static_cast<double>(std::max<std::int64_t>(Step(unit, from, to, r), 1));
  }
  return price;
}

void SpendGreedily(const AllocationProblem& problem, Room& room, std::vector<int>& chosen) {
  std::priority_queue<GreedyStep> steps;
  const auto offer = [&](std::size_t u) {
    const GreedyStep step = BestStep(problem, room, u, chosen[u]);
    if (step.ratio > 0.0) steps.push(step);
  };
  for (std::size_t u = 0; u < chosen.size(); ++u) offer(u);
  while (!steps.empty()) {
    const GreedyStep step = steps.top();
    steps.pop();
    if (room.Fits(step.unit, chosen[step.unit], step.to)) {
      room.Move(step.unit, chosen[step.unit], step.to);
      chosen[step.unit] = step.to;
    }
    offer(step.unit);  // its next step, or the best one that still fits
  }
}

}  // namespace bitplan
