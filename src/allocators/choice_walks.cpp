#include "allocators/choice_walks.h"

#include <limits>
#include <queue>

#include "bitplan/core/random.h"

namespace bitplan::choices {
namespace {

constexpr double kFree = std::numeric_limits<double>::infinity();

struct WalkStep {
  double ratio = 0.0;  // fall of the value per cost; <= 0: no step
  Change change;

  // Order of a priority queue: the best is the greatest.
  bool operator<(const WalkStep& other) const {
    return ratio != other.ratio ? ratio < other.ratio : change.cluster > other.change.cluster;
  }
};

bool FitsInto(const std::vector<std::int64_t>& left, const std::vector<std::int64_t>& cost) {
  for (std::size_t r = 0; r < left.size(); ++r) {
    if (cost[r] > left[r]) return false;
  }
  return true;
}

}  // namespace

void WalkGreedily(const Table& table, const View& view, PlanState& plan) {
  std::vector<double> share;  // of what is left at first, per unit of cost
  for (const std::int64_t left : plan.left) share.push_back(1.0 / static_cast<double>(std::max<std::int64_t>(left, 1)));
  std::vector<std::int64_t> cost(table.limits);
  const auto best_of = [&](int cluster) {
    WalkStep best;
    best.change.cluster = cluster;
    ForEachChangeOf(table, view, plan, cluster, cost,
                    [&](const Change& change, const std::vector<std::int64_t>& change_cost) {
                      if (!(change.value < 0.0) || !FitsInto(plan.left, change_cost)) return;
                      double paid = 0.0;
                      for (std::size_t r = 0; r < table.limits; ++r) {
                        paid += share[r] * static_cast<double>(change_cost[r]);
                      }
                      const double ratio = paid > 0.0 ? -change.value / paid : kFree;
                      if (ratio > best.ratio) best = {ratio, change};
                    });
    return best;
  };
  for (bool moved = true; moved;) {  // a step may give back what another one lacked
    moved = false;
    std::priority_queue<WalkStep> steps;
    const auto offer = [&](int cluster) {
      const WalkStep step = best_of(cluster);
      if (step.ratio > 0.0) steps.push(step);
    };
    for (int c = 0; c < table.clusters(); ++c) offer(c);
    while (!steps.empty()) {
      const WalkStep step = steps.top();
      steps.pop();
      CostOfChange(table, view, plan, step.change, cost);
      if (FitsInto(plan.left, cost)) {
        Apply(table, view, step.change, plan);
        moved = true;
      }
      offer(step.change.cluster);
    }
  }
}

void WalkAtRandom(const Table& table, const View& view, std::uint64_t seed, PlanState& plan) {
  RandomStream stream(seed, "choices/random");
  std::vector<int> open;
  for (int c = 0; c < table.clusters(); ++c) open.push_back(c);
  std::vector<std::int64_t> cost(table.limits);
  while (!open.empty()) {
    int& drawn = open[stream.Index(open.size())];
    std::vector<Change> changes;
    ForEachChangeOf(table, view, plan, drawn, cost,
                    [&](const Change& change, const std::vector<std::int64_t>& change_cost) {
                      if (change.value < 0.0 && FitsInto(plan.left, change_cost)) changes.push_back(change);
                    });
    if (changes.empty()) {
      drawn = open.back();
      open.pop_back();
    } else {
      Apply(table, view, changes[stream.Index(changes.size())], plan);
    }
  }
}

}  // namespace bitplan::choices
