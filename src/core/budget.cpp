#include "bitplan/core/budget.h"

namespace bitplan {

std::string BudgetName(const Budget& budget) { return budget.resource.get().name; }

}  // namespace bitplan
