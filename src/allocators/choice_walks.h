// The methods of allocators/choices.h that walk: greedy and random. Private to it.
#pragma once

#include <cstdint>

#include "allocators/choice_plans.h"

namespace bitplan::choices {

// `plan` fits. `view`: at the prices that a change of mode takes its items by. Costs are set against each other in
// shares of `left`, what `plan` leaves of every limit.
void WalkGreedily(const Table& table, const View& view, PlanState& plan);

void WalkAtRandom(const Table& table, const View& view, std::uint64_t seed, PlanState& plan);

}  // namespace bitplan::choices
