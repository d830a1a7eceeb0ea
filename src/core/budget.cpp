#include "bitplan/core/budget.h"

namespace bitplan {

std::string BudgetName(BudgetKind kind) { return kind == BudgetKind::kBytes ? "bytes" : "average_bits"; }

}  // namespace bitplan
