#include "bitplan/allocators/allocator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "allocators/constrained_oracle.h"
#include "allocators/select.h"
#include "bitplan/core/constraints.h"
#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

// "budget 0.5 average bits cannot be met: the cheapest plan needs 1; the blocking layers are ...; ... raise ... to 1".
// `limit`: its index in the budget. `costs`: of the free units, each at its cheapest.
std::string Certificate(const AllocationProblem& problem, const ConstrainedProblem& constrained, const Budget& budget,
                        std::size_t limit, const std::vector<std::int64_t>& costs, std::int64_t total) {
  constexpr std::size_t kNamed = 3;
  const Resource& resource = budget.limits[limit].resource;
  const std::int64_t fixed_cost = constrained.fixed_cost[limit];
  const double per_unit = resource.per_weight ? static_cast<double>(constrained.weights) : resource.scale;
  const std::string needed = per_unit > 1.0 || resource.per_weight
                                 ? fmt::format("{:.10g}", std::ceil(1e3 * static_cast<double>(total) / per_unit) / 1e3)
                                 : fmt::format("{}", total);
  const int narrowest = constrained.free.widths.front();
  std::vector<std::pair<std::int64_t, std::string>> takers;
  for (std::size_t u = 0; u < costs.size(); ++u) {
    const Unit& unit = constrained.free.units[u];
    if (costs[u] == 0) continue;
    takers.emplace_back(costs[u], fmt::format("{} ({}, at least {})", unit.name, Counted(unit.weights, "weight"),
                                              Counted(narrowest, "bit")));
  }
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    const Unit& unit = problem.units[u];
    const int bits = constrained.fixed_bits[u];
    if (bits <= 0 || bits == kFloatBits) continue;  // free, removed or left out of the budget
    takers.emplace_back(Cost(unit, bits, resource), fmt::format("{} ({}, pinned at {})", unit.name,
                                                                Counted(unit.weights, "weight"), Counted(bits, "bit")));
  }
  std::stable_sort(takers.begin(), takers.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string blocking;
  for (std::size_t i = 0; i < std::min(takers.size(), kNamed); ++i) {
    blocking += i == 0 ? "the blocking layers are " : ", ";
    blocking += takers[i].second;
  }
  if (takers.size() > kNamed) blocking += fmt::format(" and {} more", takers.size() - kNamed);
  if (!blocking.empty()) blocking += "; ";
  if (fixed_cost > 0 && constrained.pinned) {
    const double share = static_cast<double>(fixed_cost) / static_cast<double>(total);
    blocking += fmt::format("pinned layers take {:.0f} % of it; ", 100.0 * share);
  }
  return fmt::format("budget {} {} cannot be met: the cheapest plan needs {}; {}{}{}raise the budget to {}",
                     budget.limits[limit].value, resource.words, needed, blocking,
                     fixed_cost > 0 && constrained.pinned ? "loosen allocate.pins, " : "",
                     resource.kind == ResourceKind::kTimed ? "allow other widths in allocate.bits or "
                     : narrowest > 0                       ? "allow narrower widths in allocate.bits or "
                                                           : "",
                     needed);
}

void CheckBudgetValues(const Budget& budget) {
  if (budget.limits.empty()) throw Error(ErrorKind::kInternal, "the budget limits nothing");
  for (const Limit& limit : budget.limits) {
    if (std::isfinite(limit.value) && limit.value >= 0.0) continue;
    throw Error(ErrorKind::kUsage,
                fmt::format("allocate.budget.{} is {}; it must be a number >= 0", LimitName(limit), limit.value));
  }
}

// Where no resource costs less at a wider width, the narrowest plan is the cheapest in all of them: limits that can be
// met one by one can be met together.
void CheckFeasible(const AllocationProblem& problem, const ConstrainedProblem& constrained,
                   const AllocateOptions& options) {
  std::string refused;
  for (std::size_t r = 0; r < options.budget.limits.size(); ++r) {
    std::vector<std::int64_t> costs;
    std::int64_t total = constrained.fixed_cost[r];
    for (const Unit& unit : constrained.free.units) {
      std::int64_t cheapest = std::numeric_limits<std::int64_t>::max();
      for (const int width : constrained.free.widths) {
        cheapest = std::min(cheapest, Cost(unit, width, options.budget.limits[r].resource));
      }
      costs.push_back(cheapest);
      total += cheapest;
    }
    if (total <= constrained.capacity[r]) continue;
    if (!refused.empty()) refused += "; ";
    refused += Certificate(problem, constrained, options.budget, r, costs, total);
  }
  if (!refused.empty()) throw Error(ErrorKind::kInfeasible, refused);
}

// Error(kUsage) where a limit's cost falls with the width and the allocator does not take that.
void CheckCosts(const Allocator& allocator, const AllocationProblem& problem, const Budget& budget) {
  if (allocator.any_cost) return;
  for (const Limit& limit : budget.limits) {
    const Resource& resource = limit.resource;
    if (resource.kind == ResourceKind::kCounted) continue;
    for (const Unit& unit : problem.units) {
      for (std::size_t k = 1; k < problem.widths.size(); ++k) {
        const int from = problem.widths[k - 1], to = problem.widths[k];
        if (Cost(unit, to, resource) >= Cost(unit, from, resource)) continue;
        throw Error(ErrorKind::kUsage,
                    fmt::format("allocate.budget.{}: by its table layer {} is faster at {} than at {}, and allocator "
                                "'{}' needs costs that do not fall with the width; take exact or lagrangian",
                                resource.name, unit.name, Counted(to, "bit"), Counted(from, "bit"), allocator.name));
      }
    }
  }
}

// The limits that widths of weights change something about; where there is none, one that no plan exceeds.
Budget LimitsOnWeights(const AllocateOptions& options) {
  Budget budget = options.budget;
  std::erase_if(budget.limits, [](const Limit& limit) { return limit.resource.get().kind == ResourceKind::kPeak; });
  if (!budget.limits.empty()) return budget;
  return {AverageBits(), static_cast<double>(TableWidths(options).back())};
}

bool SameResources(const Budget& a, const Budget& b) {
  return std::equal(a.limits.begin(), a.limits.end(), b.limits.begin(), b.limits.end(),
                    [](const Limit& x, const Limit& y) { return &x.resource.get() == &y.resource.get(); });
}

// An answer for the limits of `seen` as one for those of `asked`: of those that were not seen it costs nothing.
Allocation WithUnseenLimits(Allocation answer, const Budget& seen, const Budget& asked) {
  std::vector<std::int64_t> cost;
  std::vector<double> prices;
  for (const Limit& limit : asked.limits) {
    std::size_t r = 0;
    while (r < seen.limits.size() && &seen.limits[r].resource.get() != &limit.resource.get()) ++r;
    cost.push_back(r < answer.cost.size() ? answer.cost[r] : 0);
    prices.push_back(r < answer.shadow_prices.size() ? answer.shadow_prices[r] : 0.0);
  }
  answer.cost = std::move(cost);
  if (!answer.shadow_prices.empty()) answer.shadow_prices = std::move(prices);
  return answer;
}

void CheckAnswer(const Allocator& allocator, const AllocationProblem& problem, const Budget& budget,
                 const Allocation& answer) {
  for (std::size_t r = 0; r < budget.limits.size(); ++r) {
    const Limit& limit = budget.limits[r];
    std::int64_t cost = 0;
    for (std::size_t u = 0; u < problem.units.size(); ++u) {
      cost += Cost(problem.units[u], answer.bits.at(u), limit.resource);
    }
    const std::int64_t capacity = Capacity(problem, limit);
    if (cost == answer.cost.at(r) && cost <= capacity) continue;
    throw Error(ErrorKind::kInternal,
                fmt::format("allocator '{}' states cost {} in {}, its plan costs {}, the budget is {}", allocator.name,
                            answer.cost[r], LimitName(limit), cost, capacity));
  }
}

// Sums in another order differ by this much.
constexpr double kRounding = 1e-12;

void Guard(const Allocator& allocator, const AllocationProblem& problem, const Budget& budget, bool pinned,
           Allocation& answer) {
  const Allocation uniform = MakeUniform(problem, budget);
  const std::vector<std::int64_t> capacities = Capacities(problem, budget);
  for (std::size_t r = 0; r < capacities.size(); ++r) {
    if (uniform.cost[r] > capacities[r]) return;  // no width for all fits: only where costs fall with the width
  }
  if (answer.predicted_loss_rise <= uniform.predicted_loss_rise * (1.0 + kRounding)) return;
  const std::string own = answer.note.empty() ? "" : "; its own note: " + answer.note;
  answer.note = fmt::format("{}; the plan of {} is predicted to cost {:.4g} nats instead of {:.4g}{}{}", uniform.note,
                            allocator.name, answer.predicted_loss_rise, uniform.predicted_loss_rise,
                            pinned ? ", without the pinned layers" : "", own);
  answer.bits = uniform.bits;
  answer.cost = uniform.cost;
  answer.predicted_loss_rise = uniform.predicted_loss_rise;
}

// Whether some unit has a wider width; `fits`: one within all limits.
struct Wider {
  bool exists = false;
  bool fits = false;
};

Wider WiderThan(const AllocationProblem& problem, const Budget& budget, const std::vector<std::int64_t>& left,
                const Allocation& answer) {
  Wider wider;
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    for (const int width : problem.widths) {
      if (width <= answer.bits[u]) continue;
      bool fits = true;
      for (std::size_t r = 0; r < left.size() && fits; ++r) {
        const Resource& resource = budget.limits[r].resource;
        fits = Cost(problem.units[u], width, resource) - Cost(problem.units[u], answer.bits[u], resource) <= left[r];
      }
      wider.exists = true;
      wider.fits = wider.fits || fits;
    }
  }
  return wider;
}

// Why a budget is not used up, where more than a hundredth of every limit is left.
std::string Unused(const AllocationProblem& problem, const Budget& budget, const Allocation& answer) {
  const std::vector<std::int64_t> capacities = Capacities(problem, budget);
  std::vector<std::int64_t> left;
  std::string shares;
  for (std::size_t r = 0; r < capacities.size(); ++r) {
    left.push_back(capacities[r] - answer.cost[r]);
    if (left[r] <= capacities[r] / 100) return {};
    const double share = 100.0 * static_cast<double>(left[r]) / static_cast<double>(capacities[r]);
    shares += capacities.size() == 1
                  ? fmt::format("{:.0f} % of the budget", share)
                  : fmt::format("{}{:.0f} % of {}", r == 0 ? "" : ", ", share, LimitName(budget.limits[r]));
  }
  const Wider wider = WiderThan(problem, budget, left, answer);
  if (!wider.exists) return "every free layer has its widest width";
  return shares + " is left" + (wider.fits ? "" : ", too little for the next width of any layer");
}

ConstrainedProblem CheckedConstraints(const AllocationProblem& problem, const AllocateOptions& options) {
  problem.Validate();
  CheckBudgetValues(options.budget);
  ConstrainedProblem constrained = Constrain(problem, options);
  CheckFeasible(problem, constrained, options);
  return constrained;
}

// The answer for the free units as one for all layers.
Allocation Spread(const ConstrainedProblem& constrained, Allocation answer) {
  std::vector<int> bits = constrained.fixed_bits;
  std::vector<std::vector<double>> probabilities;
  if (!answer.width_probabilities.empty()) {
    const std::vector<int>& widths = constrained.free.widths;
    for (const int fixed : constrained.fixed_bits) {
      const auto found = std::find(widths.begin(), widths.end(), fixed);
      std::vector<double>& row = probabilities.emplace_back();
      if (found == widths.end()) continue;
      row.assign(widths.size(), 0.0);
      row[static_cast<std::size_t>(found - widths.begin())] = 1.0;
    }
  }
  for (std::size_t u = 0; u < constrained.layers.size(); ++u) {
    for (const std::size_t layer : constrained.layers[u]) {
      bits[layer] = answer.bits[u];
      if (!probabilities.empty()) probabilities[layer] = answer.width_probabilities.at(u);
    }
  }
  answer.bits = std::move(bits);
  answer.width_probabilities = std::move(probabilities);
  answer.cost.resize(constrained.fixed_cost.size(), 0);
  for (std::size_t r = 0; r < answer.cost.size(); ++r) answer.cost[r] += constrained.fixed_cost[r];
  answer.predicted_loss_rise += constrained.fixed_loss_rise;
  if (answer.has_bound) answer.lower_bound += constrained.fixed_loss_rise;
  return answer;
}

}  // namespace

double Allocation::optimality_gap() const {
  if (!has_bound) return -1.0;
  return std::max(0.0, predicted_loss_rise - lower_bound) /
         std::max(predicted_loss_rise, std::numeric_limits<double>::min());
}

const Allocator& FindAllocator(const std::string& name) { return FindByName(Allocators(), "allocator", name); }

void CheckSolvable(const AllocationProblem& problem, const AllocateOptions& options) {
  const Allocator& allocator = FindAllocator(options.allocator);
  AllocateOptions seen = options;
  CheckBudgetValues(options.budget);
  seen.budget = LimitsOnWeights(options);
  CheckCosts(allocator, CheckedConstraints(problem, seen).free, seen.budget);
}

Allocation Allocate(const AllocationProblem& problem, const AllocateOptions& options, std::uint64_t seed,
                    LikelihoodOracle* oracle, ProgressSink& progress) {
  const Allocator& allocator = FindAllocator(options.allocator);
  CheckBudgetValues(options.budget);
  if (const Budget seen = LimitsOnWeights(options); !SameResources(seen, options.budget)) {
    AllocateOptions without = options;
    without.budget = seen;
    return WithUnseenLimits(Allocate(problem, without, seed, oracle, progress), seen, options.budget);
  }
  const ConstrainedProblem constrained = CheckedConstraints(problem, options);
  CheckCosts(allocator, constrained.free, options.budget);
  if (constrained.free.units.empty()) return Spread(constrained, {.note = "no layer is free to choose"});

  const Budget budget = constrained.FreeBudget(options.budget);
  std::optional<ConstrainedOracle> own_oracle;
  if (oracle != nullptr) own_oracle.emplace(*oracle, problem, constrained);
  Allocation answer = allocator.allocate({.problem = constrained.free,
                                          .budget = budget,
                                          .options = options,
                                          .seed = seed,
                                          .oracle = own_oracle ? &*own_oracle : nullptr,
                                          .progress = progress});
  CheckAnswer(allocator, constrained.free, budget, answer);
  if (options.guard && !allocator.baseline) {
    Guard(allocator, constrained.free, budget, constrained.pinned, answer);
  }
  const std::string unused = Unused(constrained.free, budget, answer);
  if (!unused.empty()) answer.note += (answer.note.empty() ? "" : "; ") + unused;
  return Spread(constrained, std::move(answer));
}

Allocation Allocate(const AllocationProblem& problem, const AllocateOptions& options, std::uint64_t seed) {
  return Allocate(problem, options, seed, nullptr, SilentSink());
}

std::vector<PinCost> PinCosts(const AllocationProblem& problem, const AllocateOptions& options) {
  if (options.pins.empty()) return {};
  AllocateOptions exact = options;
  exact.allocator = "exact";
  const double with_all = Allocate(problem, exact, 0).predicted_loss_rise;
  std::vector<PinCost> costs;
  for (std::size_t p = 0; p < options.pins.size(); ++p) {
    exact.pins = options.pins;
    exact.pins.erase(exact.pins.begin() + static_cast<std::ptrdiff_t>(p));
    PinCost& cost = costs.emplace_back(PinCost{options.pins[p], std::nullopt});
    try {
      cost.loss_rise = with_all - Allocate(problem, exact, 0).predicted_loss_rise;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kInfeasible) throw;
    }
  }
  return costs;
}

}  // namespace bitplan
