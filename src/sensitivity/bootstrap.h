// The Bayesian bootstrap (Rubin 1981): a mean over measured draws, weighted with one Dirichlet(1, ..., 1) vector, is a
// draw from the posterior of that mean. One set of weights serves a whole table, so that what happens to the layers
// together stays together.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "bitplan/core/problem.h"

namespace bitplan {

class TableBootstrap {
 public:
  static constexpr int kReplicates = 32;

  // `draws`: images or minibatches, >= 1, that every entry of the table is the mean of.
  TableBootstrap(std::int64_t draws, std::uint64_t seed);

  // The replicates of one entry: float64 [kReplicates] from the entry's draws [draws].
  [[nodiscard]] torch::Tensor Means(const torch::Tensor& draws) const;
  // Writes them into replicates[r][unit][column]; negative means count as zero.
  void Fill(AllocationProblem& problem, std::size_t unit, std::size_t column, const torch::Tensor& draws) const;

 private:
  torch::Tensor weights_;  // float64 [kReplicates, draws], rows sum to 1
};

// A whole table of means over images, with its replicates: `draws` [units, widths, images], negative means as zero.
void FillWithMeans(AllocationProblem& problem, const torch::Tensor& draws, std::uint64_t seed);

}  // namespace bitplan
