// The multiple-choice knapsack problem:
//
//   minimise   sum_c value(c, x_c)   over one item x_c per class c
//   subject to sum_c cost(c, x_c) <= capacity        (costs: integers; values: finite, of any sign and order).
//
// Method.
// 1. Per class, items that cost no less and are worth no more than another one go; the rest relative to the cheapest
//    item of the class, costs and capacity divided by their common divisor.
// 2. Lagrangian relaxation of the capacity. The best multiplier lambda (value per cost) is the slope at which a greedy
//    walk along the classes' lower convex hulls, steepest step first, meets the first step that does not fit. It gives
//    the bound L and, when the walk goes on past what does not fit, a first plan.
// 3. The exact answer: seen from L, an item other than the walk's own carries a penalty p >= 0 (its reduced cost), and
//    the value of a plan is L + sum p + lambda * slack. Items with p no less than the gap cannot improve. The classes
//    that keep a choice, the core, enter a dynamic program one by one, the largest changes of cost first: small ones
//    close gaps that large ones leave. A state is (slack, value); states go that another one dominates, or whose
//    penalty and what the classes still outside must charge for taking up the slack (their linear relaxation) reach the
//    gap. The most promising state is completed greedily, which shrinks the gap. When no state is left, the plan is
//    proven. Reduced costs and core as in Pisinger 1995, "A minimal algorithm for the multiple-choice knapsack
//    problem".
//
// The dynamic program creates at most `state_limit` states; then the best plan so far is returned with the true bound.
// The limit counts states, not time: the same input gives the same answer everywhere. Values closer than 1e-12 of the
// answer count as equal; of equal plans the one that is found first stays, within a class the cheaper item.
#pragma once

#include <cstdint>
#include <vector>

namespace bitplan {

struct KnapsackItem {
  std::int64_t cost = 0;
  double value = 0.0;
};

struct KnapsackSolution {
  std::vector<int> chosen;  // one item index per class
  double value = 0.0;
  double lower_bound = 0.0;   // == value when `optimal`
  double shadow_price = 0.0;  // lambda: fall of the value per unit of capacity; 0 when the capacity does not bind
  bool optimal = false;
  std::int64_t states = 0;  // created by the dynamic program
};

inline constexpr std::int64_t kKnapsackStates = 4'000'000;

// Error(kInternal) when a class is empty or the cheapest items together exceed the capacity.
[[nodiscard]] KnapsackSolution SolveKnapsack(const std::vector<std::vector<KnapsackItem>>& classes,
                                             std::int64_t capacity, std::int64_t state_limit = kKnapsackStates);

// Step 2 alone, in O(n) beside what is sorted to spend the rest.
struct KnapsackRelaxation {
  std::vector<int> rounded_down;  // optimum of the linear relaxation, its one fractional class at the cheaper item
  std::vector<int> filled;        // the same with the rest spent on further hull steps that fit, steepest first
  double lower_bound = 0.0;       // L
  double shadow_price = 0.0;      // lambda
};

// Errors as above.
[[nodiscard]] KnapsackRelaxation RelaxKnapsack(const std::vector<std::vector<KnapsackItem>>& classes,
                                               std::int64_t capacity);

}  // namespace bitplan
