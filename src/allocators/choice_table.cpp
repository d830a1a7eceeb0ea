#include "allocators/choice_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "bitplan/core/error.h"

namespace bitplan::choices {
namespace {

// No dearer in any limit and no worse.
bool Dominates(const Choice& one, const Choice& other) {
  if (one.loss_rise > other.loss_rise) return false;
  for (std::size_t r = 0; r < one.cost.size(); ++r) {
    if (one.cost[r] > other.cost[r]) return false;
  }
  return true;
}

// Indices of the choices with the part (any, where the unit is linked to none) that no other one dominates; of equal
// ones the first.
std::vector<int> Undominated(const ChoiceUnit& unit, const int* part) {
  std::vector<int> order;
  for (int k = 0; k < static_cast<int>(unit.choices.size()); ++k) {
    if (part == nullptr || unit.choices[static_cast<std::size_t>(k)].part == *part) order.push_back(k);
  }
  const auto at = [&](int k) -> const Choice& { return unit.choices[static_cast<std::size_t>(k)]; };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return at(a).loss_rise != at(b).loss_rise ? at(a).loss_rise < at(b).loss_rise : at(a).cost < at(b).cost;
  });
  std::vector<int> kept;
  for (const int k : order) {
    if (std::none_of(kept.begin(), kept.end(), [&](int better) { return Dominates(at(better), at(k)); })) {
      kept.push_back(k);
    }
  }
  return kept;
}

class Builder {
 public:
  explicit Builder(const ChoiceProblem& problem) : problem_(problem) {
    table_.limits = problem.limits.size();
    for (const ChoiceLimit& limit : problem.limits) table_.room.push_back(limit.capacity);
  }

  void AddCluster(const std::vector<int>& units) {
    if (units.size() == 1) {
      AddSlot(units.front(), nullptr);
      EndMode();
    } else {
      for (const int part : CommonParts(units)) {
        for (const int unit : units) AddSlot(unit, &part);
        EndMode();
      }
    }
    table_.cluster_begin.push_back(table_.modes());
  }

  Table Finish() {
    const auto items = static_cast<std::size_t>(table_.items());
    table_.weighed.resize(items * table_.limits);
    for (std::size_t r = 0; r < table_.limits; ++r) {
      double range = 0.0;  // of the cost of a plan, about
      for (int s = 0; s < table_.slots(); ++s) {
        double least = std::numeric_limits<double>::infinity(), most = 0.0;
        for (int i = table_.slot_begin[s]; i < table_.slot_begin[s + 1]; ++i) {
          least = std::min(least, static_cast<double>(table_.CostOf(i)[r]));
          most = std::max(most, static_cast<double>(table_.CostOf(i)[r]));
        }
        range += most - least;
      }
      table_.scale.push_back(range > 0.0 ? 1.0 / range : 1.0);
      for (std::size_t i = 0; i < items; ++i) {
        table_.weighed[r * items + i] = table_.scale[r] * static_cast<double>(table_.CostOf(static_cast<int>(i))[r]);
      }
    }
    return std::move(table_);
  }

 private:
  [[nodiscard]] std::set<int> CommonParts(const std::vector<int>& units) const {
    std::set<int> common;
    for (const int u : units) {
      std::set<int> own;
      for (const Choice& choice : problem_.units[static_cast<std::size_t>(u)].choices) own.insert(choice.part);
      if (u == units.front()) {
        common = own;
      } else {
        std::erase_if(common, [&](int part) { return own.count(part) == 0; });
      }
      if (!common.empty()) continue;
      const auto& unit = problem_.units[static_cast<std::size_t>(u)];
      throw Error(ErrorKind::kInfeasible,
                  fmt::format("{} shares '{}' with {}, but they have no choice that agrees", unit.name, unit.shared,
                              problem_.units[static_cast<std::size_t>(units.front())].name));
    }
    return common;
  }

  void AddSlot(int unit, const int* part) {
    const ChoiceUnit& given = problem_.units[static_cast<std::size_t>(unit)];
    for (const int k : Undominated(given, part)) {
      const Choice& choice = given.choices[static_cast<std::size_t>(k)];
      table_.value.push_back(choice.loss_rise);
      table_.cost.insert(table_.cost.end(), choice.cost.begin(), choice.cost.end());
      table_.choice.push_back(k);
    }
    table_.slot_begin.push_back(table_.items());
    table_.slot_unit.push_back(unit);
  }

  void EndMode() { table_.mode_begin.push_back(table_.slots()); }

  const ChoiceProblem& problem_;
  Table table_;
};

// Writes the parts of `from` that live on.
class Compactor {
 public:
  Compactor(const Table& from, const std::vector<char>& alive, Decided& decided)
      : from_(from), alive_(alive), decided_(decided) {
    to_.limits = from.limits;
    to_.room = from.room;
    to_.scale = from.scale;
  }

  std::optional<Table> Run() {
    for (int c = 0; c < from_.clusters(); ++c) {
      if (!AddCluster(c)) return std::nullopt;
    }
    const auto items = static_cast<std::size_t>(to_.items());
    to_.weighed.resize(items * to_.limits);
    for (std::size_t r = 0; r < to_.limits; ++r) {
      const double* weighed = from_.weighed.data() + r * static_cast<std::size_t>(from_.items());
      for (std::size_t i = 0; i < items; ++i) to_.weighed[r * items + i] = weighed[origin_[i]];
    }
    return FitsAtLeast() ? std::optional<Table>(std::move(to_)) : std::nullopt;
  }

 private:
  [[nodiscard]] int AliveIn(int slot) const {
    int count = 0;
    for (int i = from_.slot_begin[slot]; i < from_.slot_begin[slot + 1]; ++i) count += alive_[i] != 0 ? 1 : 0;
    return count;
  }

  [[nodiscard]] bool ModeLives(int mode) const {
    for (int s = from_.mode_begin[mode]; s < from_.mode_begin[mode + 1]; ++s) {
      if (AliveIn(s) == 0) return false;
    }
    return true;
  }

  bool AddCluster(int cluster) {
    std::vector<int> modes;
    for (int k = from_.cluster_begin[cluster]; k < from_.cluster_begin[cluster + 1]; ++k) {
      if (ModeLives(k)) modes.push_back(k);
    }
    if (modes.empty()) return false;
    if (modes.size() == 1) {
      for (int s = from_.mode_begin[modes[0]]; s < from_.mode_begin[modes[0] + 1]; ++s) {
        if (AliveIn(s) == 1) {
          Decide(s);
          continue;
        }
        AddSlot(s);
        to_.mode_begin.push_back(to_.slots());
        to_.cluster_begin.push_back(to_.modes());
      }
      return true;
    }
    for (const int mode : modes) {
      for (int s = from_.mode_begin[mode]; s < from_.mode_begin[mode + 1]; ++s) AddSlot(s);
      to_.mode_begin.push_back(to_.slots());
    }
    to_.cluster_begin.push_back(to_.modes());
    return true;
  }

  void Decide(int slot) {
    int item = from_.slot_begin[slot];
    while (alive_[item] == 0) ++item;
    decided_.chosen[static_cast<std::size_t>(from_.slot_unit[slot])] = from_.choice[item];
    decided_.value += from_.value[item];
    for (std::size_t r = 0; r < to_.limits; ++r) to_.room[r] -= from_.CostOf(item)[r];
  }

  void AddSlot(int slot) {
    for (int i = from_.slot_begin[slot]; i < from_.slot_begin[slot + 1]; ++i) {
      if (alive_[i] == 0) continue;
      to_.value.push_back(from_.value[i]);
      to_.cost.insert(to_.cost.end(), from_.CostOf(i), from_.CostOf(i) + from_.limits);
      to_.choice.push_back(from_.choice[i]);
      origin_.push_back(static_cast<std::size_t>(i));
    }
    to_.slot_begin.push_back(to_.items());
    to_.slot_unit.push_back(from_.slot_unit[slot]);
  }

  [[nodiscard]] bool FitsAtLeast() const {
    for (std::size_t r = 0; r < to_.limits; ++r) {
      std::int64_t least = 0;
      for (int c = 0; c < to_.clusters(); ++c) {
        std::int64_t cheapest = std::numeric_limits<std::int64_t>::max();
        for (int k = to_.cluster_begin[c]; k < to_.cluster_begin[c + 1]; ++k) {
          std::int64_t sum = 0;
          for (int s = to_.mode_begin[k]; s < to_.mode_begin[k + 1]; ++s) {
            std::int64_t least_item = std::numeric_limits<std::int64_t>::max();
            for (int i = to_.slot_begin[s]; i < to_.slot_begin[s + 1]; ++i) {
              least_item = std::min(least_item, to_.CostOf(i)[r]);
            }
            sum += least_item;
          }
          cheapest = std::min(cheapest, sum);
        }
        least += cheapest;
      }
      if (least > to_.room[r]) return false;
    }
    return true;
  }

  const Table& from_;
  const std::vector<char>& alive_;
  Decided& decided_;
  Table to_;
  std::vector<std::size_t> origin_;  // [items of to_]
};

}  // namespace

Table MakeTable(const ChoiceProblem& problem) {
  Builder builder(problem);
  std::map<std::string, std::vector<int>> linked;
  for (int u = 0; u < static_cast<int>(problem.units.size()); ++u) {
    const std::string& shared = problem.units[static_cast<std::size_t>(u)].shared;
    if (!shared.empty()) linked[shared].push_back(u);
  }
  for (int u = 0; u < static_cast<int>(problem.units.size()); ++u) {
    const std::string& shared = problem.units[static_cast<std::size_t>(u)].shared;
    if (shared.empty()) {
      builder.AddCluster({u});
    } else if (linked[shared].front() == u) {
      builder.AddCluster(linked[shared]);
    }
  }
  return builder.Finish();
}

std::optional<Table> Compacted(const Table& table, const std::vector<char>& alive, Decided& decided) {
  return Compactor(table, alive, decided).Run();
}

void Evaluate(const Table& table, const std::vector<double>& prices, View& view) {
  const auto items = static_cast<std::size_t>(table.items());
  view.prices = prices;
  view.reduced = table.value;
  double paid = 0.0;
  for (std::size_t r = 0; r < table.limits; ++r) {
    const double price = prices[r];
    if (price == 0.0) continue;
    const double* weighed = table.weighed.data() + r * items;
    double* reduced = view.reduced.data();
    for (std::size_t i = 0; i < items; ++i) reduced[i] += price * weighed[i];
    paid += price * table.scale[r] * static_cast<double>(table.room[r]);
  }
  view.best_item.resize(static_cast<std::size_t>(table.slots()));
  view.mode_value.resize(static_cast<std::size_t>(table.modes()));
  view.best_mode.resize(static_cast<std::size_t>(table.clusters()));
  double sum = 0.0, size = 0.0;
  for (int c = 0; c < table.clusters(); ++c) {
    int best = table.cluster_begin[c];
    for (int k = table.cluster_begin[c]; k < table.cluster_begin[c + 1]; ++k) {
      double value = 0.0;
      for (int s = table.mode_begin[k]; s < table.mode_begin[k + 1]; ++s) {
        int least = table.slot_begin[s];
        for (int i = least + 1; i < table.slot_begin[s + 1]; ++i) {
          if (view.reduced[i] < view.reduced[least]) least = i;
        }
        view.best_item[s] = least;
        value += view.reduced[least];
      }
      view.mode_value[k] = value;
      if (value < view.mode_value[best]) best = k;
    }
    view.best_mode[c] = best;
    sum += view.mode_value[best];
    size += std::abs(view.mode_value[best]);
  }
  constexpr double kRounding = 4e-16;  // of sums: a bound must not lie above the truth
  view.bound = sum - paid - kRounding * (size + std::abs(paid));
}

}  // namespace bitplan::choices
