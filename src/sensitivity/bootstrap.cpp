#include "sensitivity/bootstrap.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "bitplan/core/random.h"
#include "posterior/finite.h"

namespace bitplan {

TableBootstrap::TableBootstrap(std::int64_t draws, std::uint64_t seed) {
  RandomStream stream(seed, "sensitivity/bootstrap");
  weights_ = torch::empty({kReplicates, draws}, torch::kFloat64);
  double* const values = weights_.data_ptr<double>();
  // Exponential variates over their sum are Dirichlet(1, ..., 1).
  for (std::int64_t i = 0; i < weights_.numel(); ++i) values[i] = -std::log1p(-stream.Uniform());
  weights_.div_(weights_.sum(1, /*keepdim=*/true));
}

torch::Tensor TableBootstrap::Means(const torch::Tensor& draws) const { return weights_.mv(draws.to(torch::kFloat64)); }

void TableBootstrap::Fill(AllocationProblem& problem, std::size_t unit, std::size_t column,
                          const torch::Tensor& draws) const {
  if (problem.replicates.empty()) {
    const std::vector<std::vector<double>> table(problem.units.size(), std::vector<double>(problem.widths.size()));
    problem.replicates.assign(kReplicates, table);
  }
  const torch::Tensor means = Means(draws);
  const double* const values = means.data_ptr<double>();
  for (int r = 0; r < kReplicates; ++r) {
    problem.replicates[static_cast<std::size_t>(r)][unit][column] = std::max(0.0, values[r]);
  }
}

void FillWithMeans(AllocationProblem& problem, const torch::Tensor& draws, std::uint64_t seed) {
  const TableBootstrap bootstrap(draws.size(2), seed);
  for (std::int64_t l = 0; l < draws.size(0); ++l) {
    auto& rise = problem.loss_rise.emplace_back();
    for (std::int64_t k = 0; k < draws.size(1); ++k) {
      bootstrap.Fill(problem, static_cast<std::size_t>(l), static_cast<std::size_t>(k), draws[l][k]);
      rise.push_back(MeanNotNegative(draws[l][k]));
    }
  }
}

}  // namespace bitplan
