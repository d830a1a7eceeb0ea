// Claim: an allocation is re-solved from a saved table in milliseconds. `exact` proves 1,000 units x 9 widths optimal
// (gap 0) in under 5 ms and answers 100,000 units x 9 widths, with its gap, in about 1 s; the Lagrangian answer for
// 1,000 units x 9 widths takes under 1 ms. Under three limits `exact` proves 100 units x 49 choices (pairs of widths)
// optimal, and brings 1,000 units x 49 choices within a thousandth of the bound in under 1 s.
//
//   build/release/benchmarks/knapsack_benchmark --benchmark_out=FILE.json --benchmark_out_format=json
//
// Sizes, scores and jitter are drawn as layers of networks have them: 8 to 1,000,000 weights a unit, rises that fall
// about as 4^-bits and need not be monotone. `gap` beside each time is that of the answer. A result lies in
// benchmarks/results/knapsack_benchmark.json (two cores, shared while it was taken: read cpu_time).
#include <benchmark/benchmark.h>

#include <cmath>

#include "allocators/knapsack.h"
#include "bitplan/allocators/allocator.h"
#include "bitplan/allocators/choices.h"
#include "bitplan/core/random.h"

namespace bitplan {
namespace {

AllocationProblem Table(int units) {
  AllocationProblem problem;
  problem.widths = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  RandomStream stream(1, "benchmark/knapsack");
  for (int u = 0; u < units; ++u) {
    Unit unit;
    unit.name = "unit" + std::to_string(u);
    unit.weights = static_cast<std::int64_t>(std::exp2(stream.Uniform(3.0, 20.0)));
    unit.scales = 1 + static_cast<std::int64_t>(stream.Index(512));
    const double score = stream.Uniform(-3.0, 6.0);
    unit.score_percentiles.assign(kPercentiles, score);
    problem.loss_rise.emplace_back();
    for (const int bits : problem.widths) {
      problem.loss_rise.back().push_back(1e-6 * static_cast<double>(unit.weights) *
                                         std::exp2(2.0 * (score - bits) + stream.Uniform(-1.0, 1.0)));
    }
    problem.units.push_back(std::move(unit));
  }
  return problem;
}

void Solve(benchmark::State& state, const char* allocator, const Resource& resource) {
  const AllocationProblem problem = Table(static_cast<int>(state.range(0)));
  AllocateOptions options;
  options.allocator = allocator;
  options.bits = problem.widths;
  options.budget = {resource, resource.per_weight ? 3.0 : 3.0 / 8.0 * static_cast<double>(problem.total_weights())};
  Allocation answer;
  for (auto _ : state) {
    answer = Allocate(problem, options, 1);
    benchmark::DoNotOptimize(answer.bits.data());
  }
  state.counters["gap"] = answer.optimality_gap();
}

// The Lagrangian answer alone, with its bound.
void Lagrangian(benchmark::State& state) {
  const AllocationProblem problem = Table(static_cast<int>(state.range(0)));
  std::vector<std::vector<KnapsackItem>> classes(problem.units.size());
  for (std::size_t u = 0; u < classes.size(); ++u) {
    for (std::size_t k = 0; k < problem.widths.size(); ++k) {
      classes[u].push_back({problem.units[u].weights * problem.widths[k], problem.loss_rise[u][k]});
    }
  }
  KnapsackRelaxation answer;
  for (auto _ : state) answer = RelaxKnapsack(classes, 3 * problem.total_weights());
  double value = 0.0;
  for (std::size_t u = 0; u < classes.size(); ++u) {
    value += classes[u][static_cast<std::size_t>(answer.filled[u])].value;
  }
  state.counters["gap"] = (value - answer.lower_bound) / value;
}

// Weight and activation widths 2 to 8 of layers of very different sizes: bytes, bit operations, bytes of activations.
ChoiceProblem Pairs(int units) {
  ChoiceProblem problem;
  problem.limits = {{"bytes", 0}, {"bit operations", 0}, {"activation bytes", 0}};
  RandomStream stream(1, "benchmark/pairs");
  for (int u = 0; u < units; ++u) {
    ChoiceUnit& unit = problem.units.emplace_back();
    unit.name = "unit" + std::to_string(u);
    const double weights = std::exp2(stream.Uniform(8.0, 20.0)), macs = weights * std::exp2(stream.Uniform(0.0, 10.0));
    const double read = std::exp2(stream.Uniform(8.0, 18.0)), one = stream.Uniform(-3.0, 6.0),
                 other = stream.Uniform(-3.0, 6.0);
    for (int w = 2; w <= 8; ++w) {
      for (int a = 2; a <= 8; ++a) {
        const double rise =
            1e-6 * weights * (std::exp2(2.0 * (one - w) + stream.Uniform(-0.5, 0.5)) + std::exp2(2.0 * (other - a)));
        unit.choices.push_back(
            {{w, a}, rise, {std::llround(weights * w / 8), std::llround(macs * w * a), std::llround(read * a / 8)}, a});
      }
    }
    for (std::size_t r = 0; r < 3; ++r) {  // limits at a fifth of the way from the cheapest plan to the dearest
      const auto low = static_cast<double>(unit.choices.front().cost[r]);
      const auto high = static_cast<double>(unit.choices.back().cost[r]);
      problem.limits[r].capacity += std::llround(low + 0.2 * (high - low));
    }
  }
  return problem;
}

void SolvePairs(benchmark::State& state, const char* method) {
  const ChoiceProblem problem = Pairs(static_cast<int>(state.range(0)));
  ChoiceSolution answer;
  for (auto _ : state) answer = SolveChoices(problem, {.method = method});
  state.counters["gap"] = answer.gap();
  state.counters["proven"] = answer.proven ? 1.0 : 0.0;
}

BENCHMARK_CAPTURE(SolvePairs, three_limits_exact, "exact")->Arg(100)->Arg(1000)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(SolvePairs, three_limits_lagrangian, "lagrangian")->Arg(1000)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Solve, exact_average_bits, "exact", AverageBits())
    ->Arg(20)
    ->Arg(1000)
    ->Arg(100000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Solve, exact_bytes, "exact", StoredBytes())
    ->Arg(20)
    ->Arg(1000)
    ->Arg(100000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Solve, quantile_inform, "quantile-inform", AverageBits())
    ->Arg(20)
    ->Arg(1000)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Solve, lagrangian, "lagrangian", AverageBits())->Arg(1000)->Unit(benchmark::kMillisecond);
BENCHMARK(Lagrangian)->Arg(1000)->Arg(100000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace bitplan

BENCHMARK_MAIN();
