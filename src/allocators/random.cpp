// random: a random plan within the budget, the floor of every comparison and the material of rank correlations. From
// the cheapest plan a unit is drawn at random and goes to its next wider width; a unit whose step exceeds a limit, or
// that has its widest width, is drawn no more. Ends when no unit is left: no step fits any more.
//
// Every unit is as likely as any other, whatever its size. The plans are so no uniform sample of all plans within the
// budget, but spend it as the other allocators do.
#include "bitplan/core/random.h"
#include "allocators/select.h"

namespace bitplan {

Allocation AllocateRandom(const AllocatorInputs& inputs) {
  const AllocationProblem& problem = inputs.problem;
  const int widest = static_cast<int>(problem.widths.size()) - 1;
  std::vector<int> chosen(problem.units.size(), 0);
  Room room(problem, inputs.budget, chosen);
  std::vector<std::size_t> open(problem.units.size());
  for (std::size_t u = 0; u < open.size(); ++u) open[u] = u;
  RandomStream stream(inputs.seed, "allocate/random");
  while (!open.empty()) {
    std::size_t& drawn = open[stream.Index(open.size())];
    int& column = chosen[drawn];
    if (column < widest && room.Fits(drawn, column, column + 1)) {
      room.Move(drawn, column, column + 1);
      ++column;
    } else {
      drawn = open.back();
      open.pop_back();
    }
  }
  return MakeAllocation(problem, inputs.budget, chosen);
}

}  // namespace bitplan
