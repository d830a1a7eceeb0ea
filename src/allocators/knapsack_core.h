// The exact completion of allocators/knapsack.h: a dynamic program over the classes that keep a choice. Private to it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace bitplan::knapsack {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The greedy walk: base = its options up to the first step that does not fit, first = going on past it.
struct Walk {
  std::vector<std::size_t> base, first;  // option per class
  std::int64_t slack = 0;                // of base
  double lambda = 0.0;
  double gap = 0.0;  // value of `first` above the Lagrangian bound
};

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

inline double Penalty(const Move& move, double lambda) {
  return std::max(0.0, move.value + lambda * static_cast<double>(move.cost));
}

// What the classes that are still outside must at least charge to take up, or to give back, an amount of capacity:
// their linear relaxation, a convex and piecewise linear function of the amount.
class Charge {
 public:
  // direction +1: moves that cost more than the base; -1: moves that cost less.
  Charge(const std::vector<CoreClass>& core, double lambda, int direction);

  // From now on only the classes from k on are outside.
  void Advance(std::size_t k);
  // The charge for `amount` >= 0; what no class can take costs `rest` per unit.
  double operator()(double amount, double rest) const;

  struct Segment {
    double ratio, amount;  // penalty per amount
    std::size_t core;
    int from, to;  // moves of the class, -1: its base
  };
  // Of the classes outside, least ratio first; within a class in order.
  const std::vector<Segment>& segments() const { return segments_; }
  std::int64_t size() const { return static_cast<std::int64_t>(segments_.size()); }

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

// Proves or improves the walk's plan. Plans whose values differ by no more than `tolerance` count as equal.
class CoreSearch {
 public:
  CoreSearch(const Walk& walk, std::vector<CoreClass> core, double tolerance, std::int64_t limit);

  // Completes the walk's base by the core alone; the gap of the best plan then.
  double Start();

  // Gap between the best plan and the best bound: 0 when proven.
  double Run();

  // Options per class of the best plan found.
  const std::vector<std::size_t>& Best() const { return best_; }

  std::int64_t created() const { return created_; }

 private:
  State Root() const { return {walk_.slack, walk_.lambda * static_cast<double>(walk_.slack), -1, -1}; }

  // Least value above the Lagrangian bound that a state can end with when the classes from k on may still move.
  double Bound(const State& state) const;
  double LeastBound(const std::vector<State>& states) const;
  // A whole plan from a state: the classes outside give back what is missing and take up what is left, cheapest first.
  void Complete(const State& state);
  void Expand(std::vector<State>& states, std::size_t k);
  // Takes the classes before k out of the charges, which become sharper, and completes the most promising state.
  void Refresh(const std::vector<State>& states, std::size_t k);

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

}  // namespace bitplan::knapsack
