// How much of one resource a plan may spend.
#pragma once

#include <functional>
#include <string>

#include "bitplan/core/resource.h"

namespace bitplan {

struct Budget {
  std::reference_wrapper<const Resource> resource = AverageBits();
  double value = 3.0;  // in the resource's unit
};

// The resource's name: "average_bits".
[[nodiscard]] std::string BudgetName(const Budget& budget);

}  // namespace bitplan
