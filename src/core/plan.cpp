#include "bitplan/core/plan.h"

#include <functional>
#include <numeric>

namespace bitplan {

std::int64_t PlanLayer::weights() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::int64_t FloatWeights::weights() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace bitplan
