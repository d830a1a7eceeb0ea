#include "bitplan/allocators/allocator.h"

namespace bitplan {

Allocation AllocateAutoRound(const AllocatorInputs&);
Allocation AllocateBayesBits(const AllocatorInputs&);
Allocation AllocateExact(const AllocatorInputs&);
Allocation AllocateGreedy(const AllocatorInputs&);
Allocation AllocateHawq(const AllocatorInputs&);
Allocation AllocateLagrangian(const AllocatorInputs&);
Allocation AllocateMct(const AllocatorInputs&);
Allocation AllocateModelOpt(const AllocatorInputs&);
Allocation AllocateNncf(const AllocatorInputs&);
Allocation AllocateQuantileInform(const AllocatorInputs&);
Allocation AllocateRandom(const AllocatorInputs&);
Allocation AllocateRandomBits(const AllocatorInputs&);
Allocation AllocateRelaxed(const AllocatorInputs&);
Allocation AllocateUniform(const AllocatorInputs&);

const std::vector<Allocator>& Allocators() {
  static const std::vector<Allocator> list = {
      {.name = "quantile-inform",
       .description = "bits follow a quantile of each layer's posterior precision (modes information and rank)",
       .allocate = AllocateQuantileInform,
       .needs_posterior = true,
       .reads = AllocatorReads::kCoherence},
      {.name = "random-bits",
       .description = "learns a distribution over widths from the likelihood of the quantized network",
       .allocate = AllocateRandomBits,
       .needs_oracle = true,
       .random = true},
      {.name = "exact",
       .description = "least predicted loss rise by an exact multiple-choice knapsack, with an optimality gap",
       .allocate = AllocateExact},
      {.name = "lagrangian",
       .description = "greedy walk along the convex hulls of the table, with its dual bound and the price of a bit",
       .allocate = AllocateLagrangian},
      {.name = "greedy",
       .description = "from the cheapest plan, always the step that lowers the predicted loss rise most per cost",
       .allocate = AllocateGreedy},
      {.name = "relaxed",
       .description = "exponential curves fitted to the table, continuous optimum, rounded",
       .allocate = AllocateRelaxed},
      {.name = "bayes-bits-from-variance",
       .description = "bits from the unit round-off that the posterior variance allows, one offset for the budget",
       .allocate = AllocateBayesBits,
       .needs_posterior = true,
       .reads = AllocatorReads::kScores},
      {.name = "uniform",
       .description = "one width for every layer: the largest that fits",
       .allocate = AllocateUniform,
       .baseline = true,
       .reads = AllocatorReads::kSizes},
      {.name = "random",
       .description = "a random plan that leaves no room for a wider layer",
       .allocate = AllocateRandom,
       .random = true,
       .baseline = true,
       .reads = AllocatorReads::kSizes},
      {.name = "hawq",
       .description = "HAWQ-V3: integer program over mean Hessian trace times squared rounding error",
       .allocate = AllocateHawq,
       .metric = "hawq",
       .baseline = true},
      {.name = "mct",
       .description = "Sony Model Compression Toolkit: integer program over distances of activations",
       .allocate = AllocateMct,
       .metric = "activation-distance",
       .baseline = true},
      {.name = "autoround",
       .description = "Intel AutoRound AutoScheme: dynamic program over sums of |gradient x rounding error|",
       .allocate = AllocateAutoRound,
       .metric = "gradient",
       .baseline = true},
      {.name = "nncf",
       .description = "OpenVINO NNCF: the least sensitive layers get the narrower width until the budget is met",
       .allocate = AllocateNncf,
       .metric = "hawq",
       .baseline = true},
      {.name = "modelopt",
       .description = "NVIDIA Model Optimizer auto_quantize: integer program over squared gradient x output change",
       .allocate = AllocateModelOpt,
       .metric = "fisher-output",
       .baseline = true},
  };
  return list;
}

}  // namespace bitplan
