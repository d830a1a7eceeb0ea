#include "allocators/knapsack_core.h"

#include <tuple>

#include "bitplan/core/interrupt.h"

namespace bitplan::knapsack {

Charge::Charge(const std::vector<CoreClass>& core, double lambda, int direction) {
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
      const Point point{static_cast<double>(moves[m].cost * direction), Penalty(moves[m], lambda), static_cast<int>(m)};
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

void Charge::Advance(std::size_t k) {
  std::erase_if(segments_, [k](const Segment& segment) { return segment.core < k; });
  amounts_.assign(1, 0.0);
  penalties_.assign(1, 0.0);
  for (const Segment& segment : segments_) {
    amounts_.push_back(amounts_.back() + segment.amount);
    penalties_.push_back(penalties_.back() + segment.ratio * segment.amount);
  }
}

double Charge::operator()(double amount, double rest) const {
  const auto above = std::upper_bound(amounts_.begin(), amounts_.end(), amount);
  const auto i = static_cast<std::size_t>(above - amounts_.begin()) - 1;
  const double left = amount - amounts_[i];
  if (left <= 0.0) return penalties_[i];
  return penalties_[i] + left * (i < segments_.size() ? std::min(segments_[i].ratio, rest) : rest);
}

CoreSearch::CoreSearch(const Walk& walk, std::vector<CoreClass> core, double tolerance, std::int64_t limit)
    : walk_(walk),
      core_(std::move(core)),
      tolerance_(tolerance),
      limit_(limit),
      gap_(walk.gap),
      best_(walk.first),
      take_up_(core_, walk.lambda, +1),
      give_back_(core_, walk.lambda, -1) {}

double CoreSearch::Start() {
  Refresh({Root()}, 0);
  return gap_;
}

double CoreSearch::Run() {
  std::vector<State> states{Root()};
  Refresh(states, 0);
  std::int64_t work = 0;  // since the last refresh; at least half of all work goes into states
  for (std::size_t k = 0; k < core_.size() && gap_ > tolerance_ && !states.empty(); ++k) {
    if (core_[k].least_penalty >= gap_) continue;  // the gap has shrunk since the core was chosen
    ThrowIfInterrupted();
    const auto created = static_cast<std::int64_t>(states.size() * (core_[k].moves.size() + 1));
    if (created_ + created > limit_) return gap_ - LeastBound(states);
    created_ += created;
    work += created;
    Expand(states, k);
    if (work >= take_up_.size() + give_back_.size()) {
      Refresh(states, k + 1);
      work = 0;
    }
  }
  Refresh(states, core_.size());
  return 0.0;
}

double CoreSearch::Bound(const State& state) const {
  const auto slack = static_cast<double>(state.slack);
  const double penalty = std::max(0.0, state.value - walk_.lambda * slack);
  return penalty + (state.slack >= 0 ? take_up_(slack, walk_.lambda) : give_back_(-slack, kInfinity));
}

double CoreSearch::LeastBound(const std::vector<State>& states) const {
  double least = gap_;
  for (const State& state : states) least = std::min(least, Bound(state));
  return least;
}

void CoreSearch::Complete(const State& state) {
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

void CoreSearch::Expand(std::vector<State>& states, std::size_t k) {
  const std::vector<Move>& moves = core_[k].moves;
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
}

void CoreSearch::Refresh(const std::vector<State>& states, std::size_t k) {
  take_up_.Advance(k);
  give_back_.Advance(k);
  const auto promising = std::min_element(states.begin(), states.end(),
                                          [&](const State& a, const State& b) { return Bound(a) < Bound(b); });
  if (promising != states.end()) Complete(*promising);
}

}  // namespace bitplan::knapsack
