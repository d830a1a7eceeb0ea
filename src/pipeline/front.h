// Plans at many budgets of one resource, by the recipe's allocator and within the recipe's other limits.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "bitplan/core/problem.h"
#include "bitplan/core/resource.h"
#include "pipeline/stage_chain.h"

namespace bitplan::pipeline {

struct FrontPoint {
  double budget = 0.0;  // of the resource, in its unit
  Solution solution;
  Plan plan;  // not measured; its own budget is the recipe's with that of the resource
};

// By which drop and curves go: allocate.budget.smallest, else average bits, or bops where activations have several
// widths.
[[nodiscard]] const Resource& ResourceToSpare(const Recipe& recipe);

// What the narrowest and the widest plan of weights alone take, in the resource's unit. Error(kUsage) where nothing is
// left to plan.
[[nodiscard]] std::pair<double, double> NarrowestAndWidest(const AllocationProblem& table,
                                                           const AllocateOptions& options, const Resource& resource);

class Front {
 public:
  // Measures the table, where the folder does not have it. Error(kUsage) for an allocator that learns from the network
  // anew for every budget; `what`: who asks.
  Front(StageChain& chain, const Resource& resource, const std::string& what);

  // What the narrowest and the widest plan that the recipe allows take, in the resource's unit. Where a plan may take
  // nothing at all, `low` is a thousandth of `high`.
  [[nodiscard]] double low() const { return low_; }
  [[nodiscard]] double high() const { return high_; }
  // `count` budgets from low to high, evenly spaced in their logarithm.
  [[nodiscard]] std::vector<double> Budgets(int count) const;

  // Error(kInfeasible) where another limit of the recipe leaves no plan. `allocator`: another one than the recipe's.
  [[nodiscard]] FrontPoint At(double budget, const std::string& allocator = {});
  // How many budgets Along has left out because another limit leaves them no plan, and the least with one.
  [[nodiscard]] int infeasible() const { return infeasible_; }
  [[nodiscard]] double least_feasible() const { return least_feasible_; }
  // Why the last of them had none.
  [[nodiscard]] const std::string& refusal() const { return refusal_; }
  // At every budget, in their order. Budgets without a plan are left out, and so are those whose plan is the one
  // before.
  [[nodiscard]] std::vector<FrontPoint> Along(const std::vector<double>& budgets, const std::string& allocator = {});

 private:
  StageChain& chain_;
  const Resource& resource_;
  bool pairs_;
  double low_ = 0.0, high_ = 0.0;
  int infeasible_ = 0;
  std::string refusal_;
  double least_feasible_ = std::numeric_limits<double>::infinity();
};

}  // namespace bitplan::pipeline
