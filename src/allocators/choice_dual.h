// The Lagrangian dual of a choice table over the prices of all limits, by cutting planes (Kelley 1960; seen from the
// other side, column generation: Dantzig and Wolfe 1960). Private to allocators/choices.h.
//
//   maximise over prices p >= 0   L(p) = min over plans (value + p * cost) - p * room
//
// The master is a linear program with a row per limit and one that makes weights of plans sum to 1; a basis of it is a
// mixture of at most limits + 1 plans that keeps all limits on average. Its dual values are the prices to look at next,
// and the plan that is least at them enters. At the end the mixture is the optimum of the linear relaxation, and the
// units in which its plans differ are those that it splits.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "allocators/choice_table.h"

namespace bitplan::choices {

struct Dual {
  double bound = 0.0;                            // the greatest L that was met
  View view;                                     // at its prices
  std::vector<std::pair<double, Pick>> mixture;  // weights > 0 of the last basis
};

// Stops early at a bound that reaches `cutoff`. Adds the choices looked at to `states`.
[[nodiscard]] Dual SolveDual(const Table& table, double cutoff, std::int64_t& states);

}  // namespace bitplan::choices
