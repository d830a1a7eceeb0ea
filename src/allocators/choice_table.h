// A choice problem (core/choice.h) as flat arrays, what is dominated left out. Private to allocators/choices.h.
//
// A cluster is a unit, or the units that share a part. It has one mode per part, a mode one slot per unit, a slot the
// items that the unit may take in that mode. A plan takes one mode of every cluster and one item of each of its slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "bitplan/core/choice.h"

namespace bitplan::choices {

struct Table {
  std::size_t limits = 0;
  std::vector<double> value;          // [items]
  std::vector<double> weighed;        // [limits][items] costs, each limit's in a scale of its own
  std::vector<std::int64_t> cost;     // [items][limits]
  std::vector<int> choice;            // [items] of the unit
  std::vector<int> slot_begin{0};     // [slots + 1] items
  std::vector<int> slot_unit;         // [slots]
  std::vector<int> mode_begin{0};     // [modes + 1] slots
  std::vector<int> cluster_begin{0};  // [clusters + 1] modes
  std::vector<std::int64_t> room;     // [limits] what these clusters may take; < 0: too much is taken already
  std::vector<double> scale;          // [limits] weighed = cost * scale

  [[nodiscard]] int items() const { return static_cast<int>(value.size()); }
  [[nodiscard]] int slots() const { return static_cast<int>(slot_unit.size()); }
  [[nodiscard]] int modes() const { return static_cast<int>(mode_begin.size()) - 1; }
  [[nodiscard]] int clusters() const { return static_cast<int>(cluster_begin.size()) - 1; }
  [[nodiscard]] const std::int64_t* CostOf(int item) const {
    return cost.data() + static_cast<std::size_t>(item) * limits;
  }
};

// Error(kInfeasible) where units that share a part have none in common.
[[nodiscard]] Table MakeTable(const ChoiceProblem& problem);

// What is decided already.
struct Decided {
  std::vector<int> chosen;  // [units] of the problem; of units that a table still holds, anything
  double value = 0.0;       // of all decided units
};

// The table without the items that are not `alive`. A cluster with one mode falls apart into its slots; a slot with one
// item is decided. Nothing where a cluster has no mode left, or what remains cannot keep a limit.
[[nodiscard]] std::optional<Table> Compacted(const Table& table, const std::vector<char>& alive, Decided& decided);

// A table at prices: `reduced` = value + prices * weighed cost, and what is least.
struct View {
  std::vector<double> prices;      // [limits] >= 0
  std::vector<double> reduced;     // [items]
  std::vector<int> best_item;      // [slots]
  std::vector<double> mode_value;  // [modes]
  std::vector<int> best_mode;      // [clusters]
  double bound = 0.0;              // the Lagrangian: no plan of the table is below it

  // By how much the bound rises when the item is forced. `slot`, `mode`, `cluster`: those of the item.
  [[nodiscard]] double Penalty(int item, int slot, int mode, int cluster) const {
    const double base = mode_value[static_cast<std::size_t>(best_mode[static_cast<std::size_t>(cluster)])];
    return mode_value[static_cast<std::size_t>(mode)] - base + reduced[static_cast<std::size_t>(item)] -
           reduced[static_cast<std::size_t>(best_item[static_cast<std::size_t>(slot)])];
  }
};

void Evaluate(const Table& table, const std::vector<double>& prices, View& view);

// A plan of a table.
struct Pick {
  std::vector<int> mode;  // [clusters]
  std::vector<int> item;  // [slots]; those of other modes mean nothing
};

// visit(item, slot) for every item of the plan.
template <typename Visit>
void ForEachItem(const Table& table, const Pick& pick, Visit visit) {
  for (const int mode : pick.mode) {
    for (int slot = table.mode_begin[mode]; slot < table.mode_begin[mode + 1]; ++slot) visit(pick.item[slot], slot);
  }
}

}  // namespace bitplan::choices
