// The exact solution of a choice table: Lagrangian bounds, reduced costs, local search, branch and bound. Private to
// allocators/choices.h.
//
// At the root the dual (choice_dual.h) gives the bound L, the prices and a mixture of plans. The plans of the mixture
// are repaired and improved by single changes and by pairs; the best one is the first answer, its distance to L the
// gap. An item whose penalty at the prices (its reduced cost) is no less than the gap is in no better plan and goes;
// what has one item left is decided. What remains, the core, is searched depth first: every node solves its own dual,
// lets go of items in the same way, and branches on the cluster that the mixture splits most: by mode where the plans
// of the mixture differ in it, else by item, the least penalty first.
//
// The search ends after `limit` choices looked at; then the bound is the least of what was left open.
#pragma once

#include <cstdint>
#include <vector>

#include "allocators/choice_dual.h"
#include "allocators/choice_plans.h"
#include "allocators/choice_table.h"

namespace bitplan::choices {

struct Answer {
  bool found = false;       // whether any plan fits, as far as was searched
  std::vector<int> chosen;  // [units]
  double value = 0.0;
  double bound = 0.0;
  bool proven = false;         // that the value is the least, or without a plan: that none fits
  std::vector<double> prices;  // [limits] per unit of the cost
  std::int64_t states = 0;
};

// `units`: of the problem. With `relax_only` no branch and bound and no pairs: the dual, and its plan.
[[nodiscard]] Answer Solve(const Table& table, std::size_t units, std::int64_t limit, bool relax_only);

}  // namespace bitplan::choices
