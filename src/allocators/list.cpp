#include "bitplan/allocators/allocator.h"

namespace bitplan {

#define BITPLAN_DECLARE_ALLOCATOR(function) \
  Allocation function(const AllocationProblem&, const Budget&, const AllocateOptions&, std::uint64_t)
BITPLAN_DECLARE_ALLOCATOR(AllocateQuantileInform);
BITPLAN_DECLARE_ALLOCATOR(AllocateExact);
BITPLAN_DECLARE_ALLOCATOR(AllocateUniform);
#undef BITPLAN_DECLARE_ALLOCATOR

const std::vector<Allocator>& Allocators() {
  static const std::vector<Allocator> list = {
      {"quantile-inform", "bits follow a quantile of each layer's posterior precision (modes information and rank)",
       AllocateQuantileInform},
      {"exact", "least predicted loss rise by an exact multiple-choice knapsack, with an optimality gap",
       AllocateExact},
      {"uniform", "one width for every layer: the largest that fits", AllocateUniform},
  };
  return list;
}

}  // namespace bitplan
