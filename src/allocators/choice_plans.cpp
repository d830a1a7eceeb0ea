#include "allocators/choice_plans.h"

#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

namespace bitplan::choices {
namespace {

// How far a plan is over its limits, each in its own scale.
double Excess(const Table& table, const std::vector<std::int64_t>& left, const std::int64_t* cost) {
  double excess = 0.0;
  for (std::size_t r = 0; r < table.limits; ++r) {
    const std::int64_t after = left[r] - (cost == nullptr ? 0 : cost[r]);
    if (after < 0) excess -= table.scale[r] * static_cast<double>(after);
  }
  return excess;
}

bool Within(const std::vector<std::int64_t>& left, const std::vector<std::int64_t>& cost) {
  for (std::size_t r = 0; r < left.size(); ++r) {
    if (cost[r] > left[r]) return false;
  }
  return true;
}

// A change with its cost and what it adds to the reduced value.
struct PricedChange {
  Change change;
  std::vector<std::int64_t> cost;
  double penalty = 0.0;  // of the item, or of the mode
};

}  // namespace

PlanState PlanOf(const Table& table, Pick pick) {
  PlanState plan{std::move(pick), table.room, 0.0};
  ForEachItem(table, plan.pick, [&](int item, int) {
    plan.value += table.value[item];
    for (std::size_t r = 0; r < table.limits; ++r) plan.left[r] -= table.CostOf(item)[r];
  });
  return plan;
}

void CostOfChange(const Table& table, const View& view, const PlanState& plan, const Change& change,
                  std::vector<std::int64_t>& cost) {
  if (change.item >= 0) {
    const std::int64_t *to = table.CostOf(change.item), *from = table.CostOf(plan.pick.item[change.slot]);
    for (std::size_t r = 0; r < table.limits; ++r) cost[r] = to[r] - from[r];
    return;
  }
  std::fill(cost.begin(), cost.end(), 0);
  const int mode = plan.pick.mode[change.cluster];
  for (int s = table.mode_begin[mode]; s < table.mode_begin[mode + 1]; ++s) {
    for (std::size_t r = 0; r < table.limits; ++r) cost[r] -= table.CostOf(plan.pick.item[s])[r];
  }
  for (int s = table.mode_begin[change.mode]; s < table.mode_begin[change.mode + 1]; ++s) {
    for (std::size_t r = 0; r < table.limits; ++r) cost[r] += table.CostOf(view.best_item[s])[r];
  }
}

void Apply(const Table& table, const View& view, const Change& change, PlanState& plan) {
  std::vector<std::int64_t> cost(table.limits);
  CostOfChange(table, view, plan, change, cost);
  for (std::size_t r = 0; r < table.limits; ++r) plan.left[r] -= cost[r];
  plan.value += change.value;
  if (change.item >= 0) {
    plan.pick.item[change.slot] = change.item;
    return;
  }
  plan.pick.mode[change.cluster] = change.mode;
  for (int s = table.mode_begin[change.mode]; s < table.mode_begin[change.mode + 1]; ++s) {
    plan.pick.item[s] = view.best_item[s];
  }
}

bool Repair(const Table& table, const View& view, PlanState& plan) {
  std::vector<std::int64_t> cost(table.limits);
  while (!plan.Fits()) {
    const double excess = Excess(table, plan.left, nullptr);
    double best_ratio = std::numeric_limits<double>::infinity();
    Change best;
    bool found = false;
    for (int c = 0; c < table.clusters(); ++c) {
      ForEachChangeOf(table, view, plan, c, cost,
                      [&](const Change& change, const std::vector<std::int64_t>& change_cost) {
                        const double gained = excess - Excess(table, plan.left, change_cost.data());
                        if (gained <= 1e-12 * excess) return;
                        double paid = change.value;
                        for (std::size_t r = 0; r < table.limits; ++r) {
                          paid += view.prices[r] * table.scale[r] * static_cast<double>(change_cost[r]);
                        }
                        const double ratio = paid / gained;
                        if (ratio < best_ratio) {
                          best_ratio = ratio;
                          best = change;
                          found = true;
                        }
                      });
    }
    if (!found) return false;
    Apply(table, view, best, plan);
  }
  return true;
}

void ImproveOneByOne(const Table& table, const View& view, PlanState& plan, std::int64_t& states) {
  std::vector<std::int64_t> cost(table.limits);
  for (;;) {
    Change best;
    states += table.items();
    for (int c = 0; c < table.clusters(); ++c) {
      ForEachChangeOf(table, view, plan, c, cost,
                      [&](const Change& change, const std::vector<std::int64_t>& change_cost) {
                        if (change.value < best.value && Within(plan.left, change_cost)) best = change;
                      });
    }
    if (!(best.value < 0.0)) return;
    Apply(table, view, best, plan);
  }
}

bool ImproveByPairs(const Table& table, const View& view, double most_penalty, PlanState& plan, std::int64_t& states) {
  constexpr std::size_t kMostChanges = 3000;
  std::vector<PricedChange> changes;
  std::vector<std::int64_t> cost(table.limits);
  states += table.items();
  for (int c = 0; c < table.clusters(); ++c) {
    ForEachChangeOf(table, view, plan, c, cost,
                    [&](const Change& change, const std::vector<std::int64_t>& change_cost) {
                      const double base = view.mode_value[view.best_mode[c]];
                      const double penalty = change.item >= 0 ? view.Penalty(change.item, change.slot, change.mode, c)
                                                              : view.mode_value[change.mode] - base;
                      if (penalty < most_penalty) changes.push_back({change, change_cost, penalty});
                    });
  }
  if (changes.size() > kMostChanges) {
    std::nth_element(changes.begin(), changes.begin() + kMostChanges, changes.end(),
                     [](const PricedChange& a, const PricedChange& b) { return a.penalty < b.penalty; });
    changes.resize(kMostChanges);
  }
  std::sort(changes.begin(), changes.end(), [](const PricedChange& a, const PricedChange& b) {
    return a.change.value != b.change.value ? a.change.value < b.change.value : a.change.cluster < b.change.cluster;
  });
  double best = 0.0;
  std::size_t one = 0, other = 0;
  for (std::size_t a = 0; a < changes.size() && changes[a].change.value < 0.0; ++a) {
    for (std::size_t b = 0; b < changes.size(); ++b) {
      const double value = changes[a].change.value + changes[b].change.value;
      if (!(value < best)) break;
      ++states;
      if (changes[a].change.cluster == changes[b].change.cluster) continue;
      bool fits = true;
      for (std::size_t r = 0; r < table.limits && fits; ++r) {
        fits = changes[a].cost[r] + changes[b].cost[r] <= plan.left[r];
      }
      if (!fits) continue;
      best = value;
      one = a;
      other = b;
    }
  }
  if (!(best < 0.0)) return false;
  Apply(table, view, changes[one].change, plan);
  Apply(table, view, changes[other].change, plan);
  return true;
}

}  // namespace bitplan::choices
