#include "allocators/constrained_oracle.h"

#include <algorithm>

#include "bitplan/core/error.h"

namespace bitplan {

ConstrainedOracle::ConstrainedOracle(LikelihoodOracle& oracle, const AllocationProblem& problem,
                                     const ConstrainedProblem& constrained)
    : oracle_(oracle), constrained_(constrained) {
  const auto same = [](const std::string& name, const Unit& unit) { return name == unit.name; };
  if (oracle.widths() != problem.widths ||
      !std::equal(oracle.units().begin(), oracle.units().end(), problem.units.begin(), problem.units.end(), same)) {
    throw Error(ErrorKind::kInternal, "the likelihood oracle has other units or widths than the allocation problem");
  }
  for (const Unit& unit : constrained.free.units) names_.push_back(unit.name);
  const std::size_t widths = problem.widths.size();
  for (const int bits : constrained.fixed_bits) {
    const auto found = std::find(problem.widths.begin(), problem.widths.end(), bits);
    if (found == problem.widths.end()) {  // excluded, or free and filled in by every call
      columns_.push_back(kFloatColumn);
      mixture_.emplace_back();
    } else {
      columns_.push_back(static_cast<int>(found - problem.widths.begin()));
      mixture_.emplace_back(widths, 0.0);
      mixture_.back()[static_cast<std::size_t>(columns_.back())] = 1.0;
    }
  }
}

double ConstrainedOracle::Loss(const std::vector<int>& columns) {
  for (std::size_t u = 0; u < columns.size(); ++u) {
    const int column = columns[u] == kFloatColumn ? kFloatColumn : static_cast<int>(constrained_.columns[columns[u]]);
    for (const std::size_t layer : constrained_.layers[u]) columns_[layer] = column;
  }
  return oracle_.Loss(columns_);
}

double ConstrainedOracle::LossAndGradient(const std::vector<std::vector<double>>& mixture,
                                          std::vector<std::vector<double>>& gradient) {
  const std::size_t widths = oracle_.widths().size();
  for (std::size_t u = 0; u < mixture.size(); ++u) {
    for (const std::size_t layer : constrained_.layers[u]) {
      mixture_[layer].assign(mixture[u].empty() ? 0 : widths, 0.0);
      for (std::size_t k = 0; k < mixture[u].size(); ++k) mixture_[layer][constrained_.columns[k]] = mixture[u][k];
    }
  }
  const double loss = oracle_.LossAndGradient(mixture_, gradient_);
  gradient.resize(mixture.size());
  for (std::size_t u = 0; u < mixture.size(); ++u) {
    gradient[u].assign(mixture[u].size(), 0.0);
    for (const std::size_t layer : constrained_.layers[u]) {
      for (std::size_t k = 0; k < gradient[u].size(); ++k) {
        gradient[u][k] += gradient_.at(layer).at(constrained_.columns[k]);
      }
    }
  }
  return loss;
}

}  // namespace bitplan
