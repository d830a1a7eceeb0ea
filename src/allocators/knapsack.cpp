#include "allocators/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"

namespace bitplan {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

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

// The greedy walk: base = its options up to the first step that does not fit, first = going on past it.
struct Walk {
  std::vector<std::size_t> base, first;  // option per class
  std::int64_t slack = 0;                // of base
  double lambda = 0.0;
  double gap = 0.0;  // value of `first` above the Lagrangian bound
};

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

struct Move {  // another option of a class, as a difference from the walk's base
  std::int64_t cost;
  double value;
  std::size_t option;
};

struct CoreClass {
  std::size_t cls = 0;
  std::vector<Move> moves;
  std::int64_t size = 0;             // greatest change of cost
  double least_penalty = kInfinity;  // of a move
};

double Penalty(const Move& move, double lambda) {
  return std::max(0.0, move.value + lambda * static_cast<double>(move.cost));
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

// What the classes that are still outside must at least charge to take up, or to give back, an amount of capacity:
// their linear relaxation, a convex and piecewise linear function of the amount.
class Charge {
 public:
  // direction +1: moves that cost more than the base; -1: moves that cost less.
  Charge(const std::vector<CoreClass>& core, double lambda, int direction) {
    struct Point {
      double amount, penalty;
      int move;
    };
    const auto ratio = [](const Point& from, const Point& to) {
      return (to.penalty - from.penalty) / (to.amount - from.amount);
    };
    std::vector<Point> hull;
    for (std::size_t k = 0; k < core.size(); ++k) {
      hull.assign(1, {0.0, 0.0, -1});
      const std::vector<Move>& moves = core[k].moves;  // ascending in cost
      for (std::size_t i = 0; i < moves.size(); ++i) {
        const std::size_t m = direction > 0 ? i : moves.size() - 1 - i;
        const Point point{static_cast<double>(moves[m].cost * direction), Penalty(moves[m], lambda),
                          static_cast<int>(m)};
        if (point.amount <= 0.0) continue;
        while (hull.size() >= 2 && ratio(hull.back(), point) <= ratio(hull[hull.size() - 2], hull.back())) {
          hull.pop_back();
        }
        hull.push_back(point);
      }
      for (std::size_t i = 1; i < hull.size(); ++i) {
        segments_.push_back(
            {ratio(hull[i - 1], hull[i]), hull[i].amount - hull[i - 1].amount, k, hull[i - 1].move, hull[i].move});
      }
    }
    std::sort(segments_.begin(), segments_.end(), [](const Segment& a, const Segment& b) {
      return std::tie(a.ratio, a.core, a.amount) < std::tie(b.ratio, b.core, b.amount);
    });
  }

  // From now on only the classes from k on are outside.
  void Advance(std::size_t k) {
    std::erase_if(segments_, [k](const Segment& segment) { return segment.core < k; });
    amounts_.assign(1, 0.0);
    penalties_.assign(1, 0.0);
    for (const Segment& segment : segments_) {
      amounts_.push_back(amounts_.back() + segment.amount);
      penalties_.push_back(penalties_.back() + segment.ratio * segment.amount);
    }
  }

  // The charge for `amount` >= 0; what no class can take costs `rest` per unit.
  double operator()(double amount, double rest) const {
    const auto above = std::upper_bound(amounts_.begin(), amounts_.end(), amount);
    const auto i = static_cast<std::size_t>(above - amounts_.begin()) - 1;
    const double left = amount - amounts_[i];
    if (left <= 0.0) return penalties_[i];
    return penalties_[i] + left * (i < segments_.size() ? std::min(segments_[i].ratio, rest) : rest);
  }

  struct Segment {
    double ratio, amount;  // penalty per amount
    std::size_t core;
    int from, to;  // moves of the class, -1: its base
  };
  // Of the classes outside, least ratio first; within a class in order.
  const std::vector<Segment>& segments() const { return segments_; }

 private:
  std::vector<Segment> segments_;
  std::vector<double> amounts_, penalties_;  // cumulative
};

struct State {
  std::int64_t slack;  // capacity left; < 0: a class still to come has to give back
  double value;        // above the Lagrangian bound
  int trace;           // last move taken, -1: none
  int move;            // of the class just added, -1: it stays at its base
};

struct Trace {
  int parent;
  std::size_t cls, option;
};

class CoreSearch {
 public:
  CoreSearch(const Walk& walk, std::vector<CoreClass> core, double tolerance, std::int64_t limit)
      : walk_(walk),
        core_(std::move(core)),
        tolerance_(tolerance),
        limit_(limit),
        gap_(walk.gap),
        best_(walk.first),
        take_up_(core_, walk.lambda, +1),
        give_back_(core_, walk.lambda, -1) {}

  // Completes the walk's base by the core alone; the gap of the best plan then.
  double Start() {
    take_up_.Advance(0);
    give_back_.Advance(0);
    Complete(Root());
    return gap_;
  }

  // Gap between the best plan and the best bound: 0 when proven.
  double Run() {
    std::vector<State> states{Root()};
    for (std::size_t k = 0; k < core_.size() && gap_ > tolerance_ && !states.empty(); ++k) {
      ThrowIfInterrupted();
      if (core_[k].least_penalty >= gap_) continue;  // the gap has shrunk since the core was chosen
      const auto created = static_cast<std::int64_t>(states.size() * (core_[k].moves.size() + 1));
      if (created_ + created > limit_) return gap_ - LeastBound(states);
      created_ += created;
      Expand(states, k);
    }
    return 0.0;
  }

  // Options per class of the best plan found.
  const std::vector<std::size_t>& Best() const { return best_; }

  std::int64_t created() const { return created_; }

 private:
  State Root() const { return {walk_.slack, walk_.lambda * static_cast<double>(walk_.slack), -1, -1}; }

  // Least value above the Lagrangian bound that a state can end with when the classes from k on may still move.
  double Bound(const State& state) const {
    const auto slack = static_cast<double>(state.slack);
    const double penalty = std::max(0.0, state.value - walk_.lambda * slack);
    return penalty + (state.slack >= 0 ? take_up_(slack, walk_.lambda) : give_back_(-slack, kInfinity));
  }

  double LeastBound(const std::vector<State>& states) const {
    double least = gap_;
    for (const State& state : states) least = std::min(least, Bound(state));
    return least;
  }

  // A whole plan from a state: the classes outside give back what is missing and take up what is left, cheapest first.
  void Complete(const State& state) {
    std::vector<int> taken(core_.size(), -1);
    std::int64_t slack = state.slack;
    double value = state.value;
    const auto take = [&](const Charge::Segment& segment) {
      const std::vector<Move>& moves = core_[segment.core].moves;
      const Move none{0, 0.0, 0};
      const Move& from = segment.from < 0 ? none : moves[segment.from];
      slack -= moves[segment.to].cost - from.cost;
      value += moves[segment.to].value - from.value;
      taken[segment.core] = segment.to;
    };
    for (const Charge::Segment& segment : give_back_.segments()) {
      if (slack >= 0) break;
      if (taken[segment.core] == segment.from) take(segment);
    }
    for (const Charge::Segment& segment : take_up_.segments()) {
      if (segment.amount <= static_cast<double>(slack) && taken[segment.core] == segment.from) take(segment);
    }
    if (slack < 0 || !(value < gap_)) return;
    gap_ = std::max(0.0, value);
    best_ = walk_.base;
    for (int t = state.trace; t >= 0; t = traces_[t].parent) best_[traces_[t].cls] = traces_[t].option;
    for (std::size_t k = 0; k < core_.size(); ++k) {
      if (taken[k] >= 0) best_[core_[k].cls] = core_[k].moves[taken[k]].option;
    }
  }

  void Expand(std::vector<State>& states, std::size_t k) {
    const std::vector<Move>& moves = core_[k].moves;
    take_up_.Advance(k + 1);
    give_back_.Advance(k + 1);
    next_.clear();
    for (const State& state : states) {
      for (int m = -1; m < static_cast<int>(moves.size()); ++m) {
        State grown{state.slack, state.value, state.trace, m};
        if (m >= 0) {
          grown.slack -= moves[m].cost;
          grown.value += moves[m].value;
        }
        if (Bound(grown) < gap_ - tolerance_) next_.push_back(grown);
      }
    }
    std::sort(next_.begin(), next_.end(), [](const State& a, const State& b) {
      if (a.slack != b.slack) return a.slack > b.slack;
      return std::tie(a.value, a.trace, a.move) < std::tie(b.value, b.trace, b.move);
    });
    states.clear();
    double best = kInfinity;
    for (State state : next_) {
      if (!(state.value < best) || !(Bound(state) < gap_ - tolerance_)) continue;
      best = state.value;
      if (state.move >= 0) {
        traces_.push_back({state.trace, core_[k].cls, moves[state.move].option});
        state.trace = static_cast<int>(traces_.size()) - 1;
      }
      states.push_back(state);
    }
    const auto promising = std::min_element(states.begin(), states.end(),
                                            [&](const State& a, const State& b) { return Bound(a) < Bound(b); });
    if (promising != states.end()) Complete(*promising);
  }

  const Walk& walk_;
  std::vector<CoreClass> core_;
  double tolerance_;
  std::int64_t limit_;
  double gap_;
  std::vector<std::size_t> best_;
  Charge take_up_, give_back_;
  std::vector<State> next_;
  std::vector<Trace> traces_;
  std::int64_t created_ = 0;
};

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

}  // namespace bitplan
