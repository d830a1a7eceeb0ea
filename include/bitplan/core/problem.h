// What an allocator sees: a table, never a model.
//
// A unit gets one bit width. For every unit and every allowed width the table states the expected rise of the loss
// (nats per sample) when the unit alone is quantized to that width, and what the width costs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/budget.h"
#include "bitplan/core/latency.h"

namespace bitplan {

inline constexpr int kFloatBits = 32;  // width of what is left in float

// Percentiles 0, 1, ..., 100 of a quantity over the weights of a unit.
inline constexpr int kPercentiles = 101;

struct Unit {
  std::string name;                   // layer name, as the module names it
  std::int64_t weights = 0;           // > 0
  std::int64_t scales = 0;            // float32 scales that the packed form keeps: output channels, or 1 per tensor
  std::int64_t macs = 0;              // multiply-accumulates of one input through the layer
  int activation_bits = kFloatBits;   // of what it reads
  std::vector<LatencyEntry> latency;  // what a table of latencies says of it; empty: there is none
  // log2(R / (sqrt(12) * sigma)) in bits, R = 2 max|w| the quantizer range of the weight's channel, sigma the standard
  // deviation that the data alone gives the weight: the width at which rounding noise equals posterior noise.
  // Ascending, kPercentiles entries; empty when the sensitivity metric has no posterior.
  std::vector<double> score_percentiles;
  // How far the rounding errors of the unit act together, one entry per allowed width, or empty (all ones): the loss
  // rise along the rounding error itself over the sum of what every weight alone would do. A unit whose errors act
  // together needs 1/2 log2(coherence) bits more than its scores say; this is far from 1 at one and two bits.
  std::vector<double> coherence;
  // log2(sigma), the same way; the rank mode of quantile-inform orders by it.
  std::vector<double> log_sigma_percentiles;
  // Layers that share one width (core/constraints.h); empty for a unit that is one layer. The counts above are their
  // sums; what the group takes in the packed file is the sum of what they take.
  std::vector<Unit> members;
};

struct AllocationProblem {
  std::vector<Unit> units;
  std::vector<int> widths;                     // ascending, each in 0..8
  std::vector<std::vector<double>> loss_rise;  // [units][widths], nats per sample, >= 0
  // The table as other images might have given it, [replicates][units][widths]; draws from its posterior by the
  // Bayesian bootstrap over the images it was measured on. Empty for metrics that state none.
  std::vector<std::vector<std::vector<double>>> replicates;

  // Throws Error(kInternal) that names the first inconsistent field.
  void Validate() const;
  [[nodiscard]] std::int64_t total_weights() const;
};

// What the table would have been for another network that the posterior holds possible.
struct PosteriorDraw {
  std::vector<std::vector<double>> rise;  // [units][widths], its loss rise over the table's, > 0
  // What its percentiles are more than the table's, bits, [units][kPercentiles].
  std::vector<std::vector<double>> score, log_sigma;
};

// Bits that one unit takes in the packed file at one width: payload rounded up to whole bytes, a float32 scale per
// channel (none at width 0, or at 16 and 32, which are left in float), one byte for the width and grid.
[[nodiscard]] std::int64_t StoredBits(const Unit& unit, int width);

// Cost of a unit at a width in the resource's own integer measure; of a group, what its members cost.
[[nodiscard]] std::int64_t Cost(const Unit& unit, int width, const Resource& resource);

// What one bit more for every weight costs, on average over the widths 1 to 8: the scale of costs.
[[nodiscard]] double CostOfOneBit(const AllocationProblem& problem, const Resource& resource);

// A limit in the same measure: floor(value * total weights), or floor(value).
[[nodiscard]] std::int64_t Capacity(const AllocationProblem& problem, const Limit& limit);
[[nodiscard]] std::int64_t Capacity(std::int64_t total_weights, const Limit& limit);

// Of every limit of the budget.
[[nodiscard]] std::vector<std::int64_t> Capacities(const AllocationProblem& problem, const Budget& budget);

}  // namespace bitplan
