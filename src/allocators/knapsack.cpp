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
  std::int64_t divisor = 0;
  std::vector<Option> sorted;
  for (const auto& items : classes) {
    if (items.empty()) throw Error(ErrorKind::kInternal, "knapsack: a class without items");
    sorted.clear();
    for (std::size_t i = 0; i < items.size(); ++i) {
      sorted.push_back({items[i].cost, items[i].value, static_cast<int>(i)});
    }
    std::sort(sorted.begin(), sorted.end(), [](const Option& a, const Option& b) {
      if (a.cost != b.cost) return a.cost < b.cost;
      return a.value != b.value ? a.value < b.value : a.item < b.item;
    });
    const std::int64_t cheapest = sorted.front().cost;
    double best = kInfinity;
    for (Option option : sorted) {
      if (!(option.value < best)) continue;
      best = option.value;
      option.cost -= cheapest;
      divisor = std::gcd(divisor, option.cost);
      result.options.push_back(option);
    }
    result.begin.push_back(result.options.size());
    capacity -= cheapest;
  }
  if (capacity < 0) throw Error(ErrorKind::kInternal, "knapsack: the cheapest items exceed the capacity");
  result.divisor = std::max<std::int64_t>(divisor, 1);
  result.capacity = capacity / result.divisor;
  for (Option& option : result.options) option.cost /= result.divisor;
  return result;
}

struct HullStep {
  double slope;  // fall of the value per cost, > 0
  std::size_t cls;
  std::size_t from, to;  // options
};

double Slope(const Option& from, const Option& to) {
  return (from.value - to.value) / static_cast<double>(to.cost - from.cost);
}

// Steps along the lower convex hulls, steepest first; within a class in order of cost.
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
      steps.push_back({Slope(problem.options[hull[i - 1]], problem.options[hull[i]]), c, hull[i - 1], hull[i]});
    }
  }
  std::sort(steps.begin(), steps.end(), [](const HullStep& a, const HullStep& b) {
    if (a.slope != b.slope) return a.slope > b.slope;
    return a.cls != b.cls ? a.cls < b.cls : a.from < b.from;
  });
  return steps;
}

Walk GreedyWalk(const Reduced& problem) {
  Walk walk;
  walk.base.assign(problem.begin.begin(), problem.begin.end() - 1);
  walk.slack = problem.capacity;
  const std::vector<HullStep> steps = HullSteps(problem);
  const auto cost = [&](const HullStep& step) {
    return problem.options[step.to].cost - problem.options[step.from].cost;
  };
  std::size_t s = 0;
  for (; s < steps.size() && cost(steps[s]) <= walk.slack; ++s) {
    walk.base[steps[s].cls] = steps[s].to;
    walk.slack -= cost(steps[s]);
  }
  walk.first = walk.base;
  if (s == steps.size()) return walk;  // everything fits: lambda 0, gap 0
  walk.lambda = steps[s].slope;
  walk.gap = walk.lambda * static_cast<double>(walk.slack);
  for (std::int64_t left = walk.slack; s < steps.size() && left > 0; ++s) {
    if (cost(steps[s]) > left || walk.first[steps[s].cls] != steps[s].from) continue;
    walk.first[steps[s].cls] = steps[s].to;
    left -= cost(steps[s]);
    walk.gap -= steps[s].slope * static_cast<double>(cost(steps[s]));
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
