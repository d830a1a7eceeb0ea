// bayes-bits-from-variance: bits from the unit round-off that the posterior variance allows (Louizos, Ullrich, Welling
// 2017, "Bayesian Compression for Deep Learning", section on bit precision). A number whose posterior standard
// deviation is sigma need not be kept more precisely than that: a uniform grid of b bits over the range R has the step
// R / 2^b, so b follows from log2(R / sigma).
//
// Ours: the score of a unit is s_u = mean over its weights of log2(R_i / (sqrt(12) sigma_i)) (the mean of
// Unit::score_percentiles), and the width is the narrowest allowed one that is no less than s_u + c, at most the
// widest. c is one offset for all units, the largest with which the plan fits every limit; what is left then is not
// spent.
//
// Where this differs from the paper: there the budget does not exist (c is fixed and the network as large as it comes
// out), the posterior is trained with sparsity-inducing priors and prunes groups first, the precision of a layer
// follows from the mean of the posterior variances of its surviving weights (here: the mean of their logarithms, so
// that one vague weight does not speak for the layer), and the numbers are in floating point with separate exponent
// bits.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "allocators/select.h"
#include "bitplan/core/error.h"

namespace bitplan {
namespace {

double MeanScore(const Unit& unit) {
  const std::vector<double>& scores = unit.score_percentiles;
  if (scores.size() != static_cast<std::size_t>(kPercentiles)) {
    throw Error(ErrorKind::kUsage, fmt::format("bayes-bits-from-variance has no posterior for layer '{}'; it needs "
                                               "sensitivity metric 'posterior'",
                                               unit.name));
  }
  // The percentiles are equally spaced points of the distribution function: the trapezoidal rule is the mean.
  const double ends = 0.5 * (scores.front() + scores.back());
  return std::accumulate(scores.begin() + 1, scores.end() - 1, ends) / (kPercentiles - 1);
}

struct Step {
  double offset;  // the unit leaves width `column` when c grows past it
  std::size_t unit;
  int column;

  bool operator<(const Step& other) const {
    return std::tie(offset, unit, column) < std::tie(other.offset, other.unit, other.column);
  }
};

}  // namespace

Allocation AllocateBayesBits(const AllocatorInputs& inputs) {
  const AllocationProblem& problem = inputs.problem;
  std::vector<Step> steps;
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    const double score = MeanScore(problem.units[u]);
    for (int k = 0; k + 1 < static_cast<int>(problem.widths.size()); ++k) {
      steps.push_back({problem.widths[k] - score, u, k});
    }
  }
  std::sort(steps.begin(), steps.end());
  std::vector<int> chosen(problem.units.size(), 0);
  Room room(problem, inputs.budget, chosen);
  std::string reached;
  for (const Step& step : steps) {
    room.Move(step.unit, step.column, step.column + 1);
    if (room.Over()) {
      reached = fmt::format("shared offset {:+.3f} bits", step.offset);
      break;
    }
    chosen[step.unit] = step.column + 1;
  }
  Allocation result = MakeAllocation(problem, inputs.budget, chosen);
  result.note = reached;
  return result;
}

}  // namespace bitplan
