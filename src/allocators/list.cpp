#include "bitplan/allocators/allocator.h"

#include <fmt/format.h>

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
Allocation AllocateQuantileInformRank(const AllocatorInputs&);
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
       .needs_widths = true,
       .reads = AllocatorReads::kCoherence,
       .options = {"allocate.quantile", "allocate.mode"}},
      {.name = "quantile-inform-rank",
       .description = "the order of the layers by their posterior sigma, one width per segment (mode rank by name)",
       .allocate = AllocateQuantileInformRank,
       .needs_posterior = true,
       .needs_widths = true,
       .reads = AllocatorReads::kScores,
       .options = {"allocate.quantile"}},
      {.name = "random-bits",
       .description = "learns a distribution over widths from the likelihood of the quantized network",
       .allocate = AllocateRandomBits,
       .needs_oracle = true,
       .random = true,
       .needs_widths = true,
       .options = {"allocate.random_bits.estimator", "allocate.random_bits.steps", "allocate.random_bits.samples",
                   "allocate.random_bits.learning_rate", "allocate.random_bits.data_weight",
                   "allocate.random_bits.posterior_weight"}},
      {.name = "exact",
       .description = "least predicted loss rise by an exact multiple-choice knapsack, with an optimality gap",
       .allocate = AllocateExact,
       .any_cost = true},
      {.name = "lagrangian",
       .description = "greedy walk along the convex hulls of the table, with its dual bound and the price of a bit",
       .allocate = AllocateLagrangian,
       .any_cost = true},
      {.name = "greedy",
       .description = "from the cheapest plan, always the step that lowers the predicted loss rise most per cost",
       .allocate = AllocateGreedy},
      {.name = "relaxed",
       .description = "exponential curves fitted to the table, continuous optimum, rounded",
       .allocate = AllocateRelaxed,
       .needs_widths = true},
      {.name = "bayes-bits-from-variance",
       .description = "bits from the unit round-off that the posterior variance allows, one offset for the budget",
       .allocate = AllocateBayesBits,
       .needs_posterior = true,
       .needs_widths = true,
       .reads = AllocatorReads::kScores},
      {.name = "uniform",
       .description = "one width for every layer: the largest that fits",
       .allocate = AllocateUniform,
       .baseline = true,
       .reads = AllocatorReads::kSizes,
       .any_cost = true},
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
       .baseline = true,
       .any_cost = true},
      {.name = "mct",
       .description = "Sony Model Compression Toolkit: integer program over distances of activations",
       .allocate = AllocateMct,
       .metric = "activation-distance",
       .baseline = true,
       .any_cost = true},
      {.name = "autoround",
       .description = "Intel AutoRound AutoScheme: dynamic program over sums of |gradient x rounding error|",
       .allocate = AllocateAutoRound,
       .metric = "gradient",
       .baseline = true,
       .any_cost = true},
      {.name = "nncf",
       .description = "OpenVINO NNCF: the least sensitive layers get the narrower width until the budget is met",
       .allocate = AllocateNncf,
       .metric = "hawq",
       .baseline = true,
       .needs_widths = true},
      {.name = "modelopt",
       .description = "NVIDIA Model Optimizer auto_quantize: integer program over squared gradient x output change",
       .allocate = AllocateModelOpt,
       .metric = "fisher-output",
       .baseline = true,
       .needs_widths = true},
  };
  return list;
}

std::string AllocatorsHelp() {
  const auto reads = [](const Allocator& allocator) -> std::string {
    std::string text;
    switch (allocator.reads) {
      case AllocatorReads::kLossRise:
        text = *allocator.metric != '\0' ? fmt::format("its own sensitivity table (metric {})", allocator.metric)
                                         : "the sensitivity table (sensitivity.metric)";
        break;
      case AllocatorReads::kCoherence:
        text = "the posterior, and how rounding errors of a layer act together";
        break;
      case AllocatorReads::kScores:
        text = "the posterior";
        break;
      case AllocatorReads::kSizes:
        text = "the sizes of the layers, nothing else";
        break;
    }
    if (allocator.needs_oracle) text += ", and the likelihood of training images";
    if (allocator.needs_widths) text += "; needs one ordered axis of widths";
    return text + (allocator.random ? "; its answer depends on the seed" : "");
  };
  std::string text =
      "Allocators: who spends the budget of a recipe, allocate.allocator. All of them keep to every limit of "
      "allocate.budget,\n"
      "to bits, pins, groups and exclude; allocate.guard holds for those that are no baseline.\n";
  for (const bool baseline : {false, true}) {
    text += baseline ? "\nBaselines, and methods of other tools over the same quantizer:\n" : "\n";
    for (const Allocator& allocator : Allocators()) {
      if (allocator.baseline != baseline) continue;
      text +=
          fmt::format("  {}\n      {}\n      reads    {}\n", allocator.name, allocator.description, reads(allocator));
      for (const char* option : allocator.options) {
        text += fmt::format("      {}  {}\n", option == allocator.options.front() ? "options" : "       ", option);
      }
    }
  }
  return text;
}

}  // namespace bitplan
