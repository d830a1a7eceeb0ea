#include "bitplan/allocators/choices.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "allocators/choice_search.h"
#include "allocators/choice_walks.h"
#include "allocators/knapsack.h"
#include "bitplan/allocators/allocator.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"

namespace bitplan {

namespace {

bool HasLinks(const ChoiceProblem& problem) {
  return std::any_of(problem.units.begin(), problem.units.end(), [](const ChoiceUnit& u) { return !u.shared.empty(); });
}

// Fills cost and loss rise from what is chosen.
ChoiceSolution SolutionOf(const ChoiceProblem& problem, std::vector<int> chosen) {
  ChoiceSolution solution;
  solution.cost.assign(problem.limits.size(), 0);
  solution.prices.assign(problem.limits.size(), 0.0);
  for (std::size_t u = 0; u < chosen.size(); ++u) {
    const Choice& choice = problem.units[u].choices[static_cast<std::size_t>(chosen[u])];
    solution.loss_rise += choice.loss_rise;
    for (std::size_t r = 0; r < solution.cost.size(); ++r) solution.cost[r] += choice.cost[r];
  }
  solution.chosen = std::move(chosen);
  return solution;
}

// The problem with the limits of `kept` alone; of every unit the choices as they are.
ChoiceProblem WithLimits(const ChoiceProblem& problem, const std::vector<std::size_t>& kept) {
  ChoiceProblem result;
  for (const std::size_t r : kept) result.limits.push_back(problem.limits[r]);
  for (const ChoiceUnit& unit : problem.units) {
    ChoiceUnit& own = result.units.emplace_back(ChoiceUnit{unit.name, {}, unit.shared});
    for (const Choice& choice : unit.choices) {
      own.choices.push_back({choice.format, choice.loss_rise, {}, choice.part});
      for (const std::size_t r : kept) own.choices.back().cost.push_back(choice.cost[r]);
    }
  }
  return result;
}

// The same with the cost of limit r in the place of the loss rise.
ChoiceProblem Cheapest(ChoiceProblem problem, std::size_t r) {
  std::vector<std::size_t> others;
  for (std::size_t other = 0; other < problem.limits.size(); ++other) {
    if (other != r) others.push_back(other);
  }
  for (ChoiceUnit& unit : problem.units) {
    for (Choice& choice : unit.choices) choice.loss_rise = static_cast<double>(choice.cost[r]);
  }
  if (!others.empty()) return WithLimits(problem, others);
  for (ChoiceUnit& unit : problem.units) {
    for (Choice& choice : unit.choices) choice.cost = {0};
  }
  problem.limits = {{"nothing", 0}};
  return problem;
}

// The least that limit r can be when the others hold; nothing when they do not go together. Where the search ends
// before that is proven, a value that does.
std::optional<std::int64_t> LeastOf(const ChoiceProblem& problem, std::size_t r) {
  constexpr std::int64_t kStates = 20'000'000;
  const ChoiceProblem cheapest = Cheapest(problem, r);
  const choices::Answer answer = choices::Solve(choices::MakeTable(cheapest), cheapest.units.size(), kStates, false);
  if (!answer.found) return std::nullopt;
  return static_cast<std::int64_t>(std::llround(answer.value));
}

// The limits by name, in their order: the steps of one resource are one limit to the user.
std::vector<std::vector<std::size_t>> LimitsByName(const ChoiceProblem& problem) {
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t r = 0; r < problem.limits.size(); ++r) {
    const auto known = std::find_if(groups.begin(), groups.end(), [&](const std::vector<std::size_t>& group) {
      return problem.limits[group.front()].name == problem.limits[r].name;
    });
    if (known == groups.end()) {
      groups.push_back({r});
    } else {
      known->push_back(r);
    }
  }
  return groups;
}

// The least that limits of one name can be when the others hold, what no choice changes included. Of several steps by
// bisection: they are raised together.
std::optional<std::int64_t> LeastOf(const ChoiceProblem& problem, const std::vector<std::size_t>& group) {
  const auto base = [&](std::size_t r) { return problem.limits[r].base; };
  if (group.size() == 1) {
    const auto least = LeastOf(problem, group.front());
    return least ? std::optional<std::int64_t>(*least + base(group.front())) : std::nullopt;
  }
  std::int64_t low = 0, high = 0;  // of these a plan keeps `high`
  for (const std::size_t r : group) {
    std::int64_t most = base(r);
    for (const ChoiceUnit& unit : problem.units) {
      std::int64_t dearest = 0;
      for (const Choice& choice : unit.choices) dearest = std::max(dearest, choice.cost[r]);
      most += dearest;
    }
    high = std::max(high, most);
    low = std::max(low, base(r) - 1);
  }
  const auto kept = [&](std::int64_t value) {
    constexpr std::int64_t kStates = 2'000'000;
    ChoiceProblem loose = problem;
    for (const std::size_t r : group) loose.limits[r].capacity = value - base(r);
    return choices::Solve(choices::MakeTable(loose), loose.units.size(), kStates, false).found;
  };
  if (!kept(high)) return std::nullopt;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (kept(middle) ? high : low) = middle;
  }
  return high;
}

// Why no plan fits. `proven`: false where the search ended first.
[[noreturn]] void RefuseChoices(const ChoiceProblem& problem, bool proven) {
  const auto groups = LimitsByName(problem);
  const auto stated = [&](const std::vector<std::size_t>& group) {
    return problem.limits[group.front()].capacity + problem.limits[group.front()].base;
  };
  std::string alone, together;
  for (const auto& group : groups) {
    std::vector<std::size_t> all(group.size());
    for (std::size_t r = 0; r < all.size(); ++r) all[r] = r;
    const auto least = LeastOf(WithLimits(problem, group), all);
    if (!least || *least <= stated(group)) continue;
    alone += fmt::format("{}the limit of {} {} cannot be met: the cheapest plan needs {}", alone.empty() ? "" : "; ",
                         Grouped(stated(group)), problem.limits[group.front()].name, Grouped(*least));
  }
  if (!alone.empty()) throw Error(ErrorKind::kInfeasible, alone);
  std::string nearest;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::string& name = problem.limits[groups[g].front()].name;
    together += fmt::format("{}{} {}",
                            g == 0                   ? ""
                            : g + 1 == groups.size() ? " and "
                                                     : ", ",
                            Grouped(stated(groups[g])), name);
    const auto least = LeastOf(problem, groups[g]);
    nearest += fmt::format("{}{} {}", nearest.empty() ? "" : "; ", name,
                           least && *least > stated(groups[g]) ? "at " + Grouped(*least) + " goes with the others"
                                                               : "alone cannot make room");
  }
  throw Error(ErrorKind::kInfeasible,
              proven ? fmt::format("the limits {} can be met alone but not together: {}", together, nearest)
                     : fmt::format("no plan was found that keeps the limits {} together: {}", together, nearest));
}

ChoiceSolution SolveByKnapsack(const ChoiceProblem& problem, bool exact, std::int64_t state_limit) {
  std::vector<std::vector<KnapsackItem>> classes;
  std::int64_t cheapest = 0;
  for (const ChoiceUnit& unit : problem.units) {
    auto& items = classes.emplace_back();
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (const Choice& choice : unit.choices) {
      items.push_back({choice.cost.front(), choice.loss_rise});
      least = std::min(least, choice.cost.front());
    }
    cheapest += least;
  }
  const std::int64_t capacity = problem.limits.front().capacity;
  if (cheapest > capacity) RefuseChoices(problem, true);
  ChoiceSolution solution;
  if (exact) {
    const KnapsackSolution found = SolveKnapsack(classes, capacity, std::min(state_limit, kKnapsackStates));
    solution = SolutionOf(problem, found.chosen);
    solution.proven = found.optimal;
    solution.lower_bound = found.optimal ? solution.loss_rise : found.lower_bound;
    solution.prices = {found.shadow_price};
    solution.states = found.states;
  } else {
    const KnapsackRelaxation found = RelaxKnapsack(classes, capacity);
    solution = SolutionOf(problem, found.filled);
    solution.lower_bound = std::min(found.lower_bound, solution.loss_rise);
    solution.prices = {found.shadow_price};
  }
  solution.has_bound = true;
  return solution;
}

// A single limit that the others leave no work to: the exact answer under it alone keeps them all.
std::optional<ChoiceSolution> SolveByOneLimit(const ChoiceProblem& problem, std::int64_t state_limit) {
  for (std::size_t r = 0; r < problem.limits.size(); ++r) {
    const ChoiceProblem one = WithLimits(problem, {r});
    const ChoiceSolution alone = SolveByKnapsack(one, true, state_limit);
    if (!alone.proven) continue;
    ChoiceSolution solution = SolutionOf(problem, alone.chosen);
    bool fits = true;
    for (std::size_t other = 0; other < problem.limits.size(); ++other) {
      fits = fits && solution.cost[other] <= problem.limits[other].capacity;
    }
    if (!fits) continue;
    solution.has_bound = solution.proven = true;
    solution.lower_bound = solution.loss_rise;
    solution.prices[r] = alone.prices.front();
    solution.states = alone.states;
    return solution;
  }
  return std::nullopt;
}

ChoiceSolution SolveWithBound(const ChoiceProblem& problem, bool exact, std::int64_t state_limit) {
  const bool linked = HasLinks(problem);
  if (problem.limits.size() == 1 && !linked) return SolveByKnapsack(problem, exact, state_limit);
  const choices::Answer answer = choices::Solve(choices::MakeTable(problem), problem.units.size(), state_limit, !exact);
  if (!answer.found) {
    if (exact) RefuseChoices(problem, answer.proven);
    return SolveWithBound(problem, true, state_limit);  // a plan that fits takes a search
  }
  ChoiceSolution solution = SolutionOf(problem, answer.chosen);
  solution.has_bound = true;
  solution.proven = answer.proven;
  solution.lower_bound = answer.proven ? solution.loss_rise : std::min(answer.bound, solution.loss_rise);
  solution.prices = answer.prices;
  solution.states = answer.states;
  return solution;
}

// A plan that fits and is cheap: of the least cost, every limit in its own scale, or repaired from there.
std::vector<int> CheapPlan(const ChoiceProblem& problem) {
  ChoiceProblem priced = problem;
  std::vector<double> weight;
  for (const ChoiceLimit& limit : problem.limits) {
    weight.push_back(1.0 / static_cast<double>(std::max<std::int64_t>(1, limit.capacity)));
  }
  for (ChoiceUnit& unit : priced.units) {
    for (Choice& choice : unit.choices) {
      choice.loss_rise = 0.0;
      for (std::size_t r = 0; r < weight.size(); ++r)
        choice.loss_rise += weight[r] * static_cast<double>(choice.cost[r]);
    }
  }
  return SolveWithBound(priced, false, kChoiceStates).chosen;
}

// The plan `chosen` in the table, each choice or one that is no dearer and no worse.
choices::PlanState StartOf(const ChoiceProblem& problem, const choices::Table& table, const std::vector<int>& chosen) {
  choices::Pick pick{std::vector<int>(static_cast<std::size_t>(table.clusters()), -1),
                     std::vector<int>(static_cast<std::size_t>(table.slots()), -1)};
  const auto item_for = [&](int slot) {
    const auto unit = static_cast<std::size_t>(table.slot_unit[slot]);
    const Choice& asked = problem.units[unit].choices[static_cast<std::size_t>(chosen[unit])];
    for (int i = table.slot_begin[slot]; i < table.slot_begin[slot + 1]; ++i) {
      bool no_dearer = table.value[i] <= asked.loss_rise;
      for (std::size_t r = 0; r < table.limits && no_dearer; ++r) no_dearer = table.CostOf(i)[r] <= asked.cost[r];
      if (no_dearer) return i;
    }
    return -1;
  };
  for (int c = 0; c < table.clusters(); ++c) {
    for (int k = table.cluster_begin[c]; k < table.cluster_begin[c + 1] && pick.mode[c] < 0; ++k) {
      bool whole = true;
      for (int s = table.mode_begin[k]; s < table.mode_begin[k + 1]; ++s) {
        pick.item[s] = item_for(s);
        whole = whole && pick.item[s] >= 0;
      }
      if (whole) pick.mode[c] = k;
    }
    if (pick.mode[c] < 0) throw Error(ErrorKind::kInternal, "choices: the plan to start from is not in the table");
  }
  return choices::PlanOf(table, std::move(pick));
}

ChoiceSolution SolveByWalk(const ChoiceProblem& problem, const ChoiceOptions& options, bool greedy) {
  const std::vector<int> cheap = CheapPlan(problem);
  const choices::Table table = choices::MakeTable(problem);
  std::int64_t states = 0;
  // A change of what linked units share takes the items that are best at the prices of the relaxation.
  const choices::View view = choices::SolveDual(table, std::numeric_limits<double>::infinity(), states).view;
  choices::PlanState plan = StartOf(problem, table, cheap);
  if (greedy) {
    choices::WalkGreedily(table, view, plan);
  } else {
    choices::WalkAtRandom(table, view, options.seed, plan);
  }
  std::vector<int> chosen(problem.units.size(), 0);
  choices::ForEachItem(table, plan.pick, [&](int item, int slot) {
    chosen[static_cast<std::size_t>(table.slot_unit[slot])] = table.choice[item];
  });
  return SolutionOf(problem, std::move(chosen));
}

// Whether the weights of a unit have no choice: pinned, or left in float.
bool IsFixed(const ChoiceUnit& unit) {
  return std::all_of(unit.choices.begin(), unit.choices.end(),
                     [&](const Choice& c) { return c.format.weights == unit.choices.front().format.weights; });
}

// The choice of a format; of a unit whose weights have no choice that with the format's activations.
std::vector<Choice>::const_iterator ChoiceOf(const ChoiceUnit& unit, const Format& format) {
  const bool fixed = IsFixed(unit);
  return std::find_if(unit.choices.begin(), unit.choices.end(), [&](const Choice& choice) {
    return fixed ? choice.format.activations == format.activations : choice.format == format;
  });
}

// Of the choices with a format the first, as a plan; nothing where linked units would not agree.
std::optional<std::vector<int>> AllWith(const ChoiceProblem& problem, const Format& format) {
  std::vector<int> chosen;
  std::vector<std::pair<std::string, int>> parts;
  for (const ChoiceUnit& unit : problem.units) {
    const auto found = ChoiceOf(unit, format);
    if (found == unit.choices.end()) return std::nullopt;
    chosen.push_back(static_cast<int>(found - unit.choices.begin()));
    if (unit.shared.empty()) continue;
    const auto same =
        std::find_if(parts.begin(), parts.end(), [&](const auto& part) { return part.first == unit.shared; });
    if (same == parts.end()) {
      parts.emplace_back(unit.shared, found->part);
    } else if (same->second != found->part) {
      return std::nullopt;
    }
  }
  return chosen;
}

ChoiceSolution SolveUniformly(const ChoiceProblem& problem) {
  const auto& units = problem.units;
  auto first = std::find_if(units.begin(), units.end(), [](const ChoiceUnit& unit) { return !IsFixed(unit); });
  if (first == units.end()) first = units.begin();
  std::optional<ChoiceSolution> best;
  for (const Choice& choice : first->choices) {
    const auto chosen = AllWith(problem, choice.format);
    if (!chosen) continue;
    ChoiceSolution solution = SolutionOf(problem, *chosen);
    bool fits = true;
    for (std::size_t r = 0; r < problem.limits.size(); ++r)
      fits = fits && solution.cost[r] <= problem.limits[r].capacity;
    if (fits && (!best || solution.loss_rise < best->loss_rise)) best = std::move(solution);
  }
  if (!best)
    throw Error(ErrorKind::kInfeasible, "no format that every unit has fits the limits; take another allocator");
  return *best;
}

}  // namespace

double ChoiceSolution::gap() const {
  if (!has_bound) return -1.0;
  return std::max(0.0, loss_rise - lower_bound) / std::max(std::abs(loss_rise), std::numeric_limits<double>::min());
}

ChoiceLimit ChoiceLimitOf(const Limit& limit, std::int64_t capacity) {
  const Resource& resource = limit.resource;
  return {resource.scale == 1 ? resource.name : fmt::format("{}s of {}", resource.one_more, resource.name), capacity};
}

ChoiceSolution SolveChoices(const ChoiceProblem& problem, const ChoiceOptions& options) {
  problem.Validate();
  const Allocator& allocator = FindAllocator(options.method);
  if (allocator.needs_widths) {
    throw Error(ErrorKind::kUsage,
                fmt::format("allocator '{}' needs one ordered axis of widths; for choices of any kind "
                            "take exact, lagrangian, greedy, random or uniform",
                            options.method));
  }
  if (options.method == "uniform") return SolveUniformly(problem);
  if (options.method == "greedy") return SolveByWalk(problem, options, true);
  if (options.method == "random") return SolveByWalk(problem, options, false);
  if (options.method == "lagrangian") return SolveWithBound(problem, false, options.state_limit);
  if (problem.limits.size() > 1 && !HasLinks(problem)) {
    if (auto alone = SolveByOneLimit(problem, options.state_limit)) return *alone;
  }
  return SolveWithBound(problem, true, options.state_limit);
}

}  // namespace bitplan
