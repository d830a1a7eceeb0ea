// Solves a three-layer table with the installed core library.
#include <bitplan/allocators/allocator.h>

#include <cstdio>

int main() {
  bitplan::AllocationProblem problem;
  problem.widths = {1, 2, 4};
  for (const char* name : {"a", "b", "c"}) {
    bitplan::Unit unit;
    unit.name = name;
    unit.weights = 100;
    unit.scales = 1;
    problem.units.push_back(unit);
  }
  problem.loss_rise = {{1.0, 0.5, 0.0}, {9.0, 2.0, 0.0}, {0.1, 0.05, 0.0}};
  bitplan::AllocateOptions options;
  options.allocator = "exact";
  options.budget = {bitplan::AverageBits(), 7.0 / 3.0};
  options.bits = problem.widths;
  const auto answer = bitplan::Allocate(problem, options, 1);
  std::printf("%d %d %d\n", answer.bits[0], answer.bits[1], answer.bits[2]);
  return answer.bits == std::vector<int>{2, 4, 1} ? 0 : 1;
}
