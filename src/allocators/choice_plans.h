// Plans of a choice table and what improves them. Private to allocators/choices.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "allocators/choice_table.h"

namespace bitplan::choices {

struct PlanState {
  Pick pick;
  std::vector<std::int64_t> left;  // [limits] room less what the plan takes
  double value = 0.0;

  [[nodiscard]] bool Fits() const {
    return std::all_of(left.begin(), left.end(), [](std::int64_t amount) { return amount >= 0; });
  }
};

[[nodiscard]] PlanState PlanOf(const Table& table, Pick pick);

// One change of a plan: another item of a slot, or another mode of a cluster with its best items of the view.
struct Change {
  int cluster = 0;
  int mode = 0;
  int slot = 0;
  int item = -1;  // -1: the mode changes
  double value = 0.0;
};

// By what a change would alter the cost, [limits] into `cost`.
void CostOfChange(const Table& table, const View& view, const PlanState& plan, const Change& change,
                  std::vector<std::int64_t>& cost);

void Apply(const Table& table, const View& view, const Change& change, PlanState& plan);

// visit(change, cost) for every change of one cluster; `cost` is scratch space of the size of the limits.
template <typename Visit>
void ForEachChangeOf(const Table& table, const View& view, const PlanState& plan, int cluster,
                     std::vector<std::int64_t>& cost, Visit visit) {
  const int mode = plan.pick.mode[cluster];
  for (int s = table.mode_begin[mode]; s < table.mode_begin[mode + 1]; ++s) {
    const int own = plan.pick.item[s];
    for (int i = table.slot_begin[s]; i < table.slot_begin[s + 1]; ++i) {
      if (i == own) continue;
      const Change change{cluster, mode, s, i, table.value[i] - table.value[own]};
      const std::int64_t *to = table.CostOf(i), *from = table.CostOf(own);
      for (std::size_t r = 0; r < table.limits; ++r) cost[r] = to[r] - from[r];
      visit(change, cost);
    }
  }
  for (int k = table.cluster_begin[cluster]; k < table.cluster_begin[cluster + 1]; ++k) {
    if (k == mode) continue;
    Change change{cluster, k, 0, -1, 0.0};
    for (int s = table.mode_begin[mode]; s < table.mode_begin[mode + 1]; ++s) {
      change.value -= table.value[plan.pick.item[s]];
    }
    for (int s = table.mode_begin[k]; s < table.mode_begin[k + 1]; ++s) change.value += table.value[view.best_item[s]];
    CostOfChange(table, view, plan, change, cost);
    visit(change, cost);
  }
}

// Makes a plan fit: the changes that cost least at the prices of the view for what they give back. False where no
// change gives anything back.
[[nodiscard]] bool Repair(const Table& table, const View& view, PlanState& plan);

// Single changes that fit and lower the value, the largest first, until there is none.
void ImproveOneByOne(const Table& table, const View& view, PlanState& plan, std::int64_t& states);

// Pairs of changes of two clusters that fit together and lower the value, among items whose penalty stays below
// `most_penalty`. True when something improved.
bool ImproveByPairs(const Table& table, const View& view, double most_penalty, PlanState& plan, std::int64_t& states);

}  // namespace bitplan::choices
