#include "allocators/knapsack.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "allocators/knapsack_core.h"
#include "bitplan/core/error.h"

namespace bitplan {

using namespace knapsack;

namespace {

struct Option {
  std::int64_t cost;  // above the cheapest of the class, in units of the common divisor
  double value;
  int item;
};

// Undominated options of all classes, each class ascending in cost and strictly descending in value.
struct Reduced {
  std::vector<Option> options;
  std::vector<std::size_t> begin;  // [classes + 1]
  std::int64_t capacity = 0;
  std::int64_t divisor = 1;
};

Reduced Reduce(const std::vector<std::vector<KnapsackItem>>& classes, std::int64_t capacity) {
  Reduced result;
  result.begin.reserve(classes.size() + 1);
  result.begin.push_back(0);
  result.options.reserve(classes.size() * (classes.empty() ? 0 : classes.front().size()));
  std::int64_t divisor = 0;
  std::vector<Option> sorted;
  for (const auto& items : classes) {
    if (items.empty()) throw Error(ErrorKind::kInternal, "knapsack: a class without items");
    sorted.clear();
    for (std::size_t i = 0; i < items.size(); ++i) {
      sorted.push_back({items[i].cost, items[i].value, static_cast<int>(i)});
    }
    const auto before = [](const Option& a, const Option& b) {
      if (a.cost != b.cost) return a.cost < b.cost;
      return a.value != b.value ? a.value < b.value : a.item < b.item;
    };
    if (!std::is_sorted(sorted.begin(), sorted.end(), before)) std::sort(sorted.begin(), sorted.end(), before);
    const std::int64_t cheapest = sorted.front().cost;
    double best = kInfinity;
    for (Option option : sorted) {
      if (!(option.value < best)) continue;
      best = option.value;
      option.cost -= cheapest;
      if (divisor != 1) divisor = std::gcd(divisor, option.cost);
      result.options.push_back(option);
    }
    result.begin.push_back(result.options.size());
    capacity -= cheapest;
  }
  if (capacity < 0) throw Error(ErrorKind::kInternal, "knapsack: the cheapest items exceed the capacity");
  result.divisor = std::max<std::int64_t>(divisor, 1);
  result.capacity = capacity / result.divisor;
  if (result.divisor > 1) {
    for (Option& option : result.options) option.cost /= result.divisor;
  }
  return result;
}

struct HullStep {
  double slope;  // fall of the value per cost, > 0
  std::int64_t cost;
  std::size_t cls;
  std::size_t from, to;  // options
};

// The order of the walk: steepest first, within a class in order of cost.
bool ComesBefore(const HullStep& a, const HullStep& b) {
  if (a.slope != b.slope) return a.slope > b.slope;
  return a.cls != b.cls ? a.cls < b.cls : a.from < b.from;
}

double Slope(const Option& from, const Option& to) {
  return (from.value - to.value) / static_cast<double>(to.cost - from.cost);
}

// Steps along the lower convex hulls, class by class.
std::vector<HullStep> HullSteps(const Reduced& problem) {
  std::vector<HullStep> steps;
  steps.reserve(problem.options.size());
  std::vector<std::size_t> hull;
  for (std::size_t c = 0; c + 1 < problem.begin.size(); ++c) {
    hull.clear();
    for (std::size_t o = problem.begin[c]; o < problem.begin[c + 1]; ++o) {
      const auto& options = problem.options;
      while (hull.size() >= 2 &&
             Slope(options[hull[hull.size() - 2]], options[hull.back()]) <= Slope(options[hull.back()], options[o])) {
        hull.pop_back();
      }
      hull.push_back(o);
    }
    for (std::size_t i = 1; i < hull.size(); ++i) {
      const Option &from = problem.options[hull[i - 1]], &to = problem.options[hull[i]];
      steps.push_back({Slope(from, to), to.cost - from.cost, c, hull[i - 1], hull[i]});
    }
  }
  return steps;
}

// Puts the steps that the walk takes before the first one that does not fit to the front, in any order, that one behind
// them, and takes what they cost from `slack`. Their number. By halves, so that no more is sorted than has to be.
std::size_t TakeSteepest(std::vector<HullStep>& steps, std::int64_t& slack) {
  const auto at = [&](std::size_t place) { return steps.begin() + static_cast<std::ptrdiff_t>(place); };
  std::size_t begin = 0, end = steps.size();
  while (begin < end) {
    const std::size_t middle = begin + (end - begin) / 2;
    std::nth_element(at(begin), at(middle), at(end), ComesBefore);
    std::int64_t cost = 0;
    for (std::size_t s = begin; s <= middle; ++s) cost += steps[s].cost;
    if (cost <= slack) {
      slack -= cost;
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

Walk GreedyWalk(const Reduced& problem) {
  Walk walk;
  walk.base.assign(problem.begin.begin(), problem.begin.end() - 1);
  walk.slack = problem.capacity;
  std::vector<HullStep> steps = HullSteps(problem);
  const std::size_t taken = TakeSteepest(steps, walk.slack);
  for (std::size_t s = 0; s < taken; ++s) walk.base[steps[s].cls] = std::max(walk.base[steps[s].cls], steps[s].to);
  walk.first = walk.base;
  if (taken == steps.size()) return walk;  // everything fits: lambda 0, gap 0
  const auto rest = steps.begin() + static_cast<std::ptrdiff_t>(taken);
  walk.lambda = std::min_element(rest, steps.end(), ComesBefore)->slope;
  walk.gap = walk.lambda * static_cast<double>(walk.slack);
  std::int64_t left = walk.slack;
  const auto fitting = std::partition(rest, steps.end(), [&](const HullStep& step) { return step.cost <= left; });
  std::sort(rest, fitting, ComesBefore);
  for (auto step = rest; step != fitting && left > 0; ++step) {
    if (step->cost > left || walk.first[step->cls] != step->from) continue;
    walk.first[step->cls] = step->to;
    left -= step->cost;
    walk.gap -= step->slope * static_cast<double>(step->cost);
  }
  walk.gap = std::max(walk.gap, 0.0);
  return walk;
}

// The classes that could take part in a plan better than the gap, largest first.
std::vector<CoreClass> Core(const Reduced& problem, const Walk& walk) {
  std::vector<CoreClass> core;
  for (std::size_t c = 0; c + 1 < problem.begin.size(); ++c) {
    CoreClass entry;
    entry.cls = c;
    const Option& base = problem.options[walk.base[c]];
    for (std::size_t o = problem.begin[c]; o < problem.begin[c + 1]; ++o) {
      if (o == walk.base[c]) continue;
      const Move move{problem.options[o].cost - base.cost, problem.options[o].value - base.value, o};
      const double penalty = Penalty(move, walk.lambda);
      if (penalty >= walk.gap) continue;
      entry.least_penalty = std::min(entry.least_penalty, penalty);
      entry.size = std::max(entry.size, std::abs(move.cost));
      entry.moves.push_back(move);
    }
    if (!entry.moves.empty()) core.push_back(std::move(entry));
  }
  std::sort(core.begin(), core.end(),
            [](const CoreClass& a, const CoreClass& b) { return a.size != b.size ? a.size > b.size : a.cls < b.cls; });
  return core;
}

}  // namespace

KnapsackSolution SolveKnapsack(const std::vector<std::vector<KnapsackItem>>& classes, std::int64_t capacity,
                               std::int64_t state_limit) {
  const Reduced problem = Reduce(classes, capacity);
  Walk walk = GreedyWalk(problem);
  double magnitude = 0.0;
  for (const std::size_t option : walk.first) magnitude += std::abs(problem.options[option].value);
  const double tolerance = 1e-12 * magnitude;
  {  // a first plan by the wide core makes the core narrow
    CoreSearch wide(walk, Core(problem, walk), tolerance, 0);
    walk.gap = wide.Start();
    walk.first = wide.Best();
  }
  CoreSearch search(walk, Core(problem, walk), tolerance, state_limit);
  (void)search.Start();
  const double gap = search.Run();

  KnapsackSolution solution;
  for (const std::size_t option : search.Best()) {
    solution.chosen.push_back(problem.options[option].item);
    solution.value += problem.options[option].value;
  }
  solution.optimal = gap <= 0.0;
  solution.lower_bound = solution.value - std::max(gap, 0.0);
  solution.shadow_price = walk.lambda / static_cast<double>(problem.divisor);
  solution.states = search.created();
  return solution;
}

KnapsackRelaxation RelaxKnapsack(const std::vector<std::vector<KnapsackItem>>& classes, std::int64_t capacity) {
  const Reduced problem = Reduce(classes, capacity);
  const Walk walk = GreedyWalk(problem);
  KnapsackRelaxation result;
  double value = 0.0;
  for (std::size_t c = 0; c < walk.base.size(); ++c) {
    result.rounded_down.push_back(problem.options[walk.base[c]].item);
    result.filled.push_back(problem.options[walk.first[c]].item);
    value += problem.options[walk.base[c]].value;
  }
  result.lower_bound = value - walk.lambda * static_cast<double>(walk.slack);
  result.shadow_price = walk.lambda / static_cast<double>(problem.divisor);
  return result;
}

}  // namespace bitplan
