#include "bitplan/io/tables.h"

#include "bitplan/core/resource.h"
#include "fuzz/targets.h"

namespace bitplan::fuzz {

// A table that is taken is also solved: its sums must not overflow.
void FuzzSensitivity(std::string_view bytes) {
  const AllocationProblem problem = ParseProblem(std::string(bytes), "sensitivity.json");
  (void)problem.total_weights();
  for (const Resource& resource : Resources()) {
    if (resource.kind == ResourceKind::kCounted) (void)CostOfOneBit(problem, resource);
  }
  (void)DumpProblem(problem);
}

void FuzzDraws(std::string_view bytes) {
  AllocationProblem table;
  table.widths = {2, 4};
  table.units.resize(2);
  (void)LoadPosteriorDraws(FileOf("draws.json", bytes), table);
}

}  // namespace bitplan::fuzz
