#include "allocators/choice_search.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

#include "bitplan/core/interrupt.h"

namespace bitplan::choices {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

// Where a node branches: on the modes of a cluster, or on the items of the one slot of its only mode.
struct Branch {
  int cluster = -1;
  bool on_modes = false;
};

struct Child {
  double penalty = 0.0;
  int mode = 0;
  int item = -1;  // -1: the mode alone
};

class BranchAndBound {
 public:
  BranchAndBound(std::size_t units, std::int64_t limit) : limit_(limit), decided_{std::vector<int>(units, 0), 0.0} {}

  Answer Run(const Table& table, bool relax_only) {
    Answer answer;
    Decided decided = decided_;
    const auto root = Compacted(table, std::vector<char>(static_cast<std::size_t>(table.items()), 1), decided);
    answer.prices.assign(table.limits, 0.0);
    if (!root) {
      answer.proven = true;
      return answer;
    }
    decided_ = std::move(decided);
    best_value_ = WorstValue(*root, decided_.value);
    const Dual dual = SolveDual(*root, kNone, states_);
    if (root->items() > 0) {
      for (std::size_t r = 0; r < table.limits; ++r) answer.prices[r] = dual.view.prices[r] * table.scale[r];
    }
    const double bound = decided_.value + dual.bound;
    TryMixture(*root, dual);
    if (relax_only) {
      open_ = bound;
    } else {
      if (found_) ImproveFirst(*root, dual);
      Descend(*root, dual);
    }
    answer.found = found_;
    answer.chosen = best_;
    answer.value = best_value_;
    answer.proven = found_ ? open_ >= best_value_ - tolerance_ : open_ == kNone;
    answer.bound = answer.proven ? best_value_ : std::min(best_value_, std::max(bound, open_));
    answer.states = states_;
    return answer;
  }

 private:
  // More than any plan's value.
  static double WorstValue(const Table& table, double decided) {
    double sum = decided, size = std::abs(decided);
    for (int s = 0; s < table.slots(); ++s) {
      const auto begin = table.value.begin() + table.slot_begin[s], end = table.value.begin() + table.slot_begin[s + 1];
      const auto [least, most] = std::minmax_element(begin, end);
      sum += std::max(0.0, *most);
      size += std::max(std::abs(*least), std::abs(*most));
    }
    return sum + size + 1.0;
  }

  // What a bound must reach to close a node, without what is decided.
  [[nodiscard]] double Cutoff() const { return best_value_ - tolerance_ - decided_.value; }

  void Offer(const Table& table, const PlanState& plan) {
    if (!plan.Fits() || !(decided_.value + plan.value < best_value_)) return;
    found_ = true;
    best_value_ = decided_.value + plan.value;
    double magnitude = std::abs(decided_.value);
    ForEachItem(table, plan.pick, [&](int item, int) { magnitude += std::abs(table.value[item]); });
    tolerance_ = 1e-12 * magnitude;
    best_ = decided_.chosen;
    ForEachItem(table, plan.pick, [&](int item, int slot) {
      best_[static_cast<std::size_t>(table.slot_unit[slot])] = table.choice[item];
    });
  }

  std::optional<PlanState> Repaired(const Table& table, const View& view, const Pick& pick) {
    PlanState plan = PlanOf(table, pick);
    states_ += table.items();
    if (!Repair(table, view, plan)) return std::nullopt;
    ImproveOneByOne(table, view, plan, states_);
    return plan;
  }

  void TryMixture(const Table& table, const Dual& dual) {
    for (const auto& [weight, pick] : dual.mixture) {
      if (const auto plan = Repaired(table, dual.view, pick)) Offer(table, *plan);
    }
    if (const auto plan = Repaired(table, dual.view, {dual.view.best_mode, dual.view.best_item})) Offer(table, *plan);
  }

  // Pairs of changes, from the best plan of the mixture.
  void ImproveFirst(const Table& table, const Dual& dual) {
    constexpr int kMostRounds = 100;
    std::optional<PlanState> best;
    for (const auto& [weight, pick] : dual.mixture) {
      auto plan = Repaired(table, dual.view, pick);
      if (plan && (!best || plan->value < best->value)) best = std::move(plan);
    }
    for (int round = 0; best && round < kMostRounds; ++round) {
      const double gap = best->value - dual.bound;
      if (gap <= tolerance_ || !ImproveByPairs(table, dual.view, gap, *best, states_)) break;
      ImproveOneByOne(table, dual.view, *best, states_);
    }
    if (best) Offer(table, *best);
  }

  void Visit(const Table& table) {
    ThrowIfInterrupted();
    if (table.items() == 0) {
      if (decided_.value < best_value_) Offer(table, PlanOf(table, {}));
      return;
    }
    const Dual dual = SolveDual(table, Cutoff(), states_);
    if (dual.bound >= Cutoff()) return;
    TryMixture(table, dual);
    Descend(table, dual);
  }

  // Branches at a node whose dual is known.
  void Descend(const Table& table, const Dual& dual) {
    if (dual.bound >= Cutoff()) return;
    if (states_ > limit_) {
      open_ = std::min(open_, decided_.value + dual.bound);
      return;
    }
    std::vector<char> alive(static_cast<std::size_t>(table.items()), 1);
    LetGo(table, dual, alive);
    const Branch branch = Widest(table, dual, alive);
    if (branch.cluster < 0) {  // nothing to branch on
      Restricted(table, alive);
      return;
    }
    for (const Child& child : Children(table, dual, branch, alive)) {
      if (dual.bound + child.penalty >= Cutoff()) break;
      if (states_ > limit_) {
        open_ = std::min(open_, decided_.value + dual.bound + child.penalty);
        break;
      }
      std::vector<char> below = alive;
      LetGo(table, dual, below);  // the cutoff may have fallen
      Force(table, branch.cluster, child, below);
      Restricted(table, below);
    }
  }

  void Restricted(const Table& table, const std::vector<char>& alive) {
    const double value = decided_.value;
    if (const auto smaller = Compacted(table, alive, decided_)) Visit(*smaller);
    decided_.value = value;
  }

  void LetGo(const Table& table, const Dual& dual, std::vector<char>& alive) const {
    const double most = Cutoff() - dual.bound;
    ForEachItemOf(table, [&](int item, int slot, int mode, int cluster) {
      if (dual.view.Penalty(item, slot, mode, cluster) >= most) alive[static_cast<std::size_t>(item)] = 0;
    });
  }

  template <typename Each>
  static void ForEachItemOf(const Table& table, Each each) {
    for (int c = 0; c < table.clusters(); ++c) {
      for (int k = table.cluster_begin[c]; k < table.cluster_begin[c + 1]; ++k) {
        for (int s = table.mode_begin[k]; s < table.mode_begin[k + 1]; ++s) {
          for (int i = table.slot_begin[s]; i < table.slot_begin[s + 1]; ++i) each(i, s, k, c);
        }
      }
    }
  }

  // Weight of the most frequent alternative of a cluster within the mixture, 1: not split.
  static double Agreement(const Table& table, const Dual& dual, int cluster, bool& on_modes) {
    std::vector<double> modes(
        static_cast<std::size_t>(table.cluster_begin[cluster + 1] - table.cluster_begin[cluster]));
    double total = 0.0;
    for (const auto& [weight, pick] : dual.mixture) {
      modes[static_cast<std::size_t>(pick.mode[cluster] - table.cluster_begin[cluster])] += weight;
      total += weight;
    }
    if (total <= 0.0) return 1.0;
    on_modes = modes.size() > 1;
    if (on_modes) return *std::max_element(modes.begin(), modes.end()) / total;
    const int slot = table.mode_begin[table.cluster_begin[cluster]];
    double most = 0.0;
    for (const auto& [weight, pick] : dual.mixture) {
      double same = 0.0;
      for (const auto& [other_weight, other] : dual.mixture) {
        if (other.item[slot] == pick.item[slot]) same += other_weight;
      }
      most = std::max(most, same);
    }
    return most / total;
  }

  // What a cluster costs in a plan, every limit at its price.
  static std::vector<double> PaidFor(const Table& table, const View& view, const Pick& pick, int cluster) {
    std::vector<double> paid(table.limits, 0.0);
    const int mode = pick.mode[cluster];
    for (int s = table.mode_begin[mode]; s < table.mode_begin[mode + 1]; ++s) {
      for (std::size_t r = 0; r < table.limits; ++r) {
        paid[r] += view.prices[r] * table.scale[r] * static_cast<double>(table.CostOf(pick.item[s])[r]);
      }
    }
    return paid;
  }

  // How much the plans of the mixture disagree on what a cluster costs.
  static double Spread(const Table& table, const Dual& dual, int cluster) {
    std::vector<double> least(table.limits, kNone), most(table.limits, -kNone);
    for (const auto& [weight, pick] : dual.mixture) {
      const std::vector<double> paid = PaidFor(table, dual.view, pick, cluster);
      for (std::size_t r = 0; r < table.limits; ++r) {
        least[r] = std::min(least[r], paid[r]);
        most[r] = std::max(most[r], paid[r]);
      }
    }
    double spread = 0.0;
    for (std::size_t r = 0; r < table.limits; ++r) spread += most[r] - least[r];
    return spread;
  }

  // The cluster to branch on: the one that the mixture splits by the largest changes of cost, as small ones close the
  // gaps that large ones leave; without a split the one with the most items alive.
  static Branch Widest(const Table& table, const Dual& dual, const std::vector<char>& alive) {
    Branch best;
    double largest = 0.0;
    for (int c = 0; c < table.clusters(); ++c) {
      bool on_modes = false;
      const double agreement = Agreement(table, dual, c, on_modes);
      if (agreement >= 1.0 - 1e-9) continue;
      const double size = (1.0 - agreement) * Spread(table, dual, c);
      if (best.cluster >= 0 && size <= largest) continue;
      largest = size;
      best = {c, on_modes};
    }
    if (best.cluster >= 0) return best;
    std::vector<int> count(static_cast<std::size_t>(table.clusters()), 0);
    ForEachItemOf(table, [&](int item, int, int, int cluster) {
      count[static_cast<std::size_t>(cluster)] += alive[static_cast<std::size_t>(item)] != 0 ? 1 : 0;
    });
    for (int c = 0; c < table.clusters(); ++c) {
      const bool on_modes = table.cluster_begin[c + 1] - table.cluster_begin[c] > 1;
      const int most = best.cluster < 0 ? 1 : count[static_cast<std::size_t>(best.cluster)];
      if (count[static_cast<std::size_t>(c)] > most) best = {c, on_modes};
    }
    return best;
  }

  static std::vector<Child> Children(const Table& table, const Dual& dual, const Branch& branch,
                                     const std::vector<char>& alive) {
    std::vector<Child> children;
    const int first = table.cluster_begin[branch.cluster];
    if (branch.on_modes) {
      const double base = dual.view.mode_value[dual.view.best_mode[branch.cluster]];
      for (int k = first; k < table.cluster_begin[branch.cluster + 1]; ++k) {
        children.push_back({dual.view.mode_value[k] - base, k, -1});
      }
    } else {
      const int slot = table.mode_begin[first];
      for (int i = table.slot_begin[slot]; i < table.slot_begin[slot + 1]; ++i) {
        if (alive[static_cast<std::size_t>(i)] == 0) continue;
        children.push_back({dual.view.Penalty(i, slot, first, branch.cluster), first, i});
      }
    }
    std::stable_sort(children.begin(), children.end(),
                     [](const Child& a, const Child& b) { return a.penalty < b.penalty; });
    return children;
  }

  static void Force(const Table& table, int cluster, const Child& child, std::vector<char>& alive) {
    for (int k = table.cluster_begin[cluster]; k < table.cluster_begin[cluster + 1]; ++k) {
      for (int s = table.mode_begin[k]; s < table.mode_begin[k + 1]; ++s) {
        for (int i = table.slot_begin[s]; i < table.slot_begin[s + 1]; ++i) {
          if (k != child.mode || (child.item >= 0 && i != child.item)) alive[static_cast<std::size_t>(i)] = 0;
        }
      }
    }
  }

  std::int64_t limit_, states_ = 0;
  double tolerance_ = 0.0;  // values that differ by less count as equal
  Decided decided_;
  bool found_ = false;
  std::vector<int> best_;
  double best_value_ = kNone;
  double open_ = kNone;  // the least bound of what was not searched
};

}  // namespace

Answer Solve(const Table& table, std::size_t units, std::int64_t limit, bool relax_only) {
  return BranchAndBound(units, limit).Run(table, relax_only);
}

}  // namespace bitplan::choices
