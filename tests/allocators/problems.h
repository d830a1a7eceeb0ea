// Allocation problems for the tests, and the solver that tries every plan.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "bitplan/allocators/allocator.h"
#include "bitplan/core/random.h"

namespace bitplan::testing {

// A table as a network gives it: loss rises that fall about as 4^-bits, percentiles that belong to them. With
// `disorder` > 0 the rises are jittered by up to that many powers of two, so that they may grow with the bits.
inline AllocationProblem RandomProblem(RandomStream& stream, int units, const std::vector<int>& widths,
                                       double disorder = 0.0) {
  AllocationProblem problem;
  problem.widths = widths;
  for (int u = 0; u < units; ++u) {
    Unit unit;
    unit.name = "layer" + std::to_string(u);
    unit.weights = 1 + static_cast<std::int64_t>(std::exp2(stream.Uniform(3.0, 14.0)));
    unit.scales = 1 + static_cast<std::int64_t>(stream.Index(64));
    unit.macs = unit.weights * (1 + 50 * (u % 7));
    const double score = stream.Uniform(-3.0, 6.0), width = stream.Uniform(0.5, 3.0),
                 sigma = stream.Uniform(-9.0, -2.0);
    for (int p = 0; p < kPercentiles; ++p) {
      unit.score_percentiles.push_back(score + width * (p - 50) / 50.0);
      unit.log_sigma_percentiles.push_back(sigma + width * (p - 50) / 50.0);
    }
    for (const int bits : {1, 2, 4, 8}) {  // times rise with the width, in steps
      unit.latency.push_back({.weight_bits = bits, .nanoseconds = 1000 + 10 * unit.weights * bits});
    }
    std::vector<double> rises;
    for (const int bits : widths) {
      rises.push_back(1e-4 * std::exp2(2.0 * (score - bits) + stream.Uniform(-disorder, disorder)) *
                      static_cast<double>(unit.weights));
    }
    problem.units.push_back(unit);
    problem.loss_rise.push_back(rises);
  }
  return problem;
}

// Those that a plan of weights is the sum of.
inline std::vector<std::reference_wrapper<const Resource>> LayerResources() {
  std::vector<std::reference_wrapper<const Resource>> resources;
  for (const Resource& resource : Resources()) {
    if (resource.kind != ResourceKind::kPeak) resources.emplace_back(resource);
  }
  return resources;
}

inline AllocateOptions Options(const std::string& allocator, const AllocationProblem& problem, const Budget& budget) {
  AllocateOptions options;
  options.allocator = allocator;
  options.budget = budget;
  options.bits = problem.widths;
  return options;
}

inline std::int64_t CheapestCost(const AllocationProblem& problem, const Resource& resource) {
  std::int64_t cost = 0;
  for (const Unit& unit : problem.units) cost += Cost(unit, problem.widths.front(), resource);
  return cost;
}

// A budget of which `share` lies between the cheapest (0) and the dearest plan (1).
inline Budget BudgetAt(const AllocationProblem& problem, const Resource& resource, double share) {
  const auto low = static_cast<double>(CheapestCost(problem, resource));
  double high = 0.0;
  for (const Unit& unit : problem.units) high += static_cast<double>(Cost(unit, problem.widths.back(), resource));
  const double cost = std::ceil(low + share * (high - low));
  return {resource, resource.per_weight ? (cost + 0.5) / static_cast<double>(problem.total_weights())
                                        : cost / static_cast<double>(resource.scale)};
}

// Limits on several resources, each with its share.
inline Budget BudgetOf(const AllocationProblem& problem, const std::vector<std::pair<const char*, double>>& shares) {
  Budget budget;
  budget.limits.clear();
  for (const auto& [name, share] : shares) {
    const Resource& resource = FindResource(name);
    budget.Set(resource, BudgetAt(problem, resource, share).limits.front().value);
  }
  return budget;
}

// Least predicted loss rise over every plan within the budget; infinite when there is none.
inline double Exhaustive(const AllocationProblem& problem, const Budget& budget) {
  const std::vector<std::int64_t> capacities = Capacities(problem, budget);
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> column(problem.units.size(), 0);
  for (;;) {
    std::vector<std::int64_t> cost(capacities.size(), 0);
    double rise = 0.0;
    for (std::size_t u = 0; u < column.size(); ++u) {
      for (std::size_t r = 0; r < cost.size(); ++r) {
        cost[r] += Cost(problem.units[u], problem.widths[column[u]], budget.limits[r].resource);
      }
      rise += problem.loss_rise[u][column[u]];
    }
    bool fits = true;
    for (std::size_t r = 0; r < cost.size(); ++r) fits = fits && cost[r] <= capacities[r];
    if (fits) best = std::min(best, rise);
    std::size_t u = 0;
    while (u < column.size() && ++column[u] == problem.widths.size()) column[u++] = 0;
    if (u == column.size()) return best;
  }
}

}  // namespace bitplan::testing
