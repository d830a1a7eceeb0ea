// The oracle that an allocator sees: the caller's, for the problem that pins, groups and exclusions leave. A free unit
// stands for its layers, a pinned layer keeps its width, an excluded one stays in float.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/constraints.h"
#include "bitplan/core/likelihood_oracle.h"

namespace bitplan {

class ConstrainedOracle final : public LikelihoodOracle {
 public:
  // Error(kInternal) when the oracle's units or widths are not those of the problem.
  ConstrainedOracle(LikelihoodOracle& oracle, const AllocationProblem& problem, const ConstrainedProblem& constrained);

  [[nodiscard]] const std::vector<std::string>& units() const override { return names_; }
  [[nodiscard]] const std::vector<int>& widths() const override { return constrained_.free.widths; }
  void NextBatch() override { oracle_.NextBatch(); }
  [[nodiscard]] double Loss(const std::vector<int>& columns) override;
  [[nodiscard]] double LossAndGradient(const std::vector<std::vector<double>>& mixture,
                                       std::vector<std::vector<double>>& gradient) override;

 private:
  LikelihoodOracle& oracle_;
  const ConstrainedProblem& constrained_;
  std::vector<std::string> names_;
  std::vector<int> columns_;                  // of every layer; those of free ones are filled in by Loss
  std::vector<std::vector<double>> mixture_;  // likewise
  std::vector<std::vector<double>> gradient_;
};

}  // namespace bitplan
