#include "bitplan/io/plan.h"

#include "fuzz/targets.h"

namespace bitplan::fuzz {

void FuzzPlan(std::string_view bytes) {
  const Plan plan = ParsePlan(std::string(bytes), "plan.yaml");
  (void)DumpPlan(plan);
}

}  // namespace bitplan::fuzz
