// What a plan may spend.
#pragma once

#include <string>

namespace bitplan {

enum class BudgetKind {
  kAverageBits,  // sum(weights * bits) / sum(weights) over the quantizable layers: the figure that papers quote
  kBytes,        // packed weights with their scales and the bit-width map
};

struct Budget {
  BudgetKind kind = BudgetKind::kAverageBits;
  double value = 3.0;  // bits per weight, or bytes
};

// "average_bits" or "bytes".
[[nodiscard]] std::string BudgetName(BudgetKind kind);

}  // namespace bitplan
