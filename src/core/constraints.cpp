#include "bitplan/core/constraints.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan {
namespace {

constexpr int kFree = -1;
constexpr int kNoGroup = -1;

[[noreturn]] void Refuse(const std::string& what) { throw Error(ErrorKind::kUsage, what); }

// Calls `visit` with every unit whose name matches.
template <typename Visit>
void ForEachMatch(const AllocationProblem& problem, const std::string& key, const std::string& pattern, Visit visit) {
  bool found = false;
  for (std::size_t u = 0; u < problem.units.size(); ++u) {
    if (!MatchesPattern(problem.units[u].name, pattern)) continue;
    found = true;
    visit(u);
  }
  if (found) return;
  std::vector<std::string> names;
  for (const Unit& unit : problem.units) names.push_back(unit.name);
  const std::string nearest = NearestName(pattern, names);
  Refuse(fmt::format(
      "{}: no layer matches '{}'; {}", key, pattern,
      nearest.empty() ? fmt::format("the layers are {}", fmt::join(names, ", ")) : "the nearest layer is " + nearest));
}

std::size_t ColumnOf(const AllocationProblem& problem, int width, const std::string& who) {
  const auto found = std::find(problem.widths.begin(), problem.widths.end(), width);
  if (found == problem.widths.end()) {
    Refuse(fmt::format("{} holds {}, which the sensitivity table lacks; it has {}", who, width,
                       fmt::join(problem.widths, ", ")));
  }
  return static_cast<std::size_t>(found - problem.widths.begin());
}

// Columns of the table that allocate.bits asks for, ascending and without repetition.
std::vector<std::size_t> AllowedColumns(const AllocationProblem& problem, const std::vector<int>& bits) {
  std::vector<std::size_t> columns;
  for (const int width : bits) columns.push_back(ColumnOf(problem, width, "allocate.bits"));
  if (columns.empty()) Refuse("allocate.bits is empty; it needs at least one width");
  std::sort(columns.begin(), columns.end());
  columns.erase(std::unique(columns.begin(), columns.end()), columns.end());
  return columns;
}

// [units] group of every unit, or kNoGroup.
std::vector<int> Groups(const AllocationProblem& problem, const AllocateOptions& options,
                        const std::vector<int>& fixed_bits) {
  std::vector<int> group(problem.units.size(), kNoGroup);
  for (std::size_t g = 0; g < options.groups.size(); ++g) {
    for (const std::string& pattern : options.groups[g]) {
      ForEachMatch(problem, "allocate.groups", pattern, [&](std::size_t u) {
        if (fixed_bits[u] == kFloatBits) return;
        if (group[u] != kNoGroup && group[u] != static_cast<int>(g)) {
          Refuse(fmt::format("allocate.groups: layer {} is in two groups", problem.units[u].name));
        }
        group[u] = static_cast<int>(g);
      });
    }
  }
  return group;
}

// A pin of one member holds for the group.
void SpreadPins(const AllocationProblem& problem, const std::vector<int>& group, std::size_t groups,
                std::vector<int>& fixed_bits) {
  constexpr std::size_t kNobody = static_cast<std::size_t>(-1);
  std::vector<std::size_t> pinned(groups, kNobody);  // the member that decides
  for (std::size_t u = 0; u < group.size(); ++u) {
    if (group[u] == kNoGroup || fixed_bits[u] == kFree) continue;
    std::size_t& first = pinned[group[u]];
    if (first == kNobody) first = u;
    if (fixed_bits[first] != fixed_bits[u]) {
      Refuse(fmt::format("allocate.groups: {} is pinned to {} and {} to {}, but they share one width",
                         problem.units[first].name, Counted(fixed_bits[first], "bit"), problem.units[u].name,
                         fixed_bits[u]));
    }
  }
  for (std::size_t u = 0; u < group.size(); ++u) {
    if (group[u] != kNoGroup && pinned[group[u]] != kNobody) fixed_bits[u] = fixed_bits[pinned[group[u]]];
  }
}

std::vector<double> Selected(const std::vector<double>& row, const std::vector<std::size_t>& columns) {
  std::vector<double> selected;
  if (row.empty()) return selected;
  selected.reserve(columns.size());
  for (const std::size_t column : columns) selected.push_back(row[column]);
  return selected;
}

// Percentiles of the weights of all members. Every member's percentiles are points of its distribution function; each
// carries its share of the member's weights, the two ends half of it, and stands for the middle of its own mass.
std::vector<double> PooledPercentiles(const std::vector<Unit>& members, std::vector<double> Unit::*percentiles) {
  std::vector<std::pair<double, double>> points;  // value, mass
  double total = 0.0;
  for (const Unit& member : members) {
    const std::vector<double>& values = member.*percentiles;
    if (values.empty()) return {};
    const auto mass = static_cast<double>(member.weights);
    for (int p = 0; p < kPercentiles; ++p) {
      points.emplace_back(values[p], p == 0 || p + 1 == kPercentiles ? 0.5 * mass : mass);
    }
    total += mass * (kPercentiles - 1);
  }
  std::sort(points.begin(), points.end());
  std::vector<double> pooled;
  std::size_t i = 0;
  double before = 0.0;  // mass of the points before i
  for (int p = 0; p < kPercentiles; ++p) {
    const double target = total * p / (kPercentiles - 1);
    while (i + 1 < points.size() && before + points[i].second + 0.5 * points[i + 1].second <= target) {
      before += points[i].second;
      ++i;
    }
    const double here = before + 0.5 * points[i].second;
    if (target <= here || i + 1 == points.size()) {
      pooled.push_back(points[i].first);
      continue;
    }
    const double next = before + points[i].second + 0.5 * points[i + 1].second;
    const double share = (target - here) / (next - here);
    pooled.push_back((1.0 - share) * points[i].first + share * points[i + 1].first);
  }
  pooled.front() = points.front().first;
  pooled.back() = points.back().first;
  return pooled;
}

// The rows of the members hold what acts together; what their single weights do is that over the coherence.
std::vector<double> PooledCoherence(const std::vector<Unit>& members, const std::vector<std::vector<double>>& rises) {
  std::vector<double> pooled;
  for (std::size_t k = 0; k < rises.front().size(); ++k) {
    double together = 0.0, alone = 0.0;
    for (std::size_t m = 0; m < members.size(); ++m) {
      if (members[m].coherence.empty()) return {};
      together += rises[m][k];
      alone += rises[m][k] / members[m].coherence[k];
    }
    pooled.push_back(alone > 0.0 ? together / alone : 1.0);
  }
  return pooled;
}

Unit Merged(std::vector<Unit> members, const std::vector<std::vector<double>>& rises) {
  if (members.size() == 1) return std::move(members.front());
  Unit unit;
  for (const Unit& member : members) {
    unit.name += (unit.name.empty() ? "" : "+") + member.name;
    unit.weights += member.weights;
    unit.scales += member.scales;
    unit.macs += member.macs;
  }
  unit.score_percentiles = PooledPercentiles(members, &Unit::score_percentiles);
  unit.log_sigma_percentiles = PooledPercentiles(members, &Unit::log_sigma_percentiles);
  unit.coherence = PooledCoherence(members, rises);
  unit.members = std::move(members);
  return unit;
}

// A layer that is left in float takes its time all the same.
void ChargeFloat(Unit unit, const std::vector<Limit>& limits, std::vector<std::int64_t>& cost) {
  unit.activation_bits = kFloatBits;
  for (std::size_t r = 0; r < limits.size(); ++r) {
    const Resource& resource = limits[r].resource;
    if (resource.kind == ResourceKind::kTimed) cost[r] += Cost(unit, kFloatBits, resource);
  }
}

}  // namespace

bool MatchesPattern(std::string_view name, std::string_view pattern) {
  // Greedy matching that goes back to the last star.
  std::size_t n = 0, p = 0, star = std::string_view::npos, after_star = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after_star = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++after_star;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Budget ConstrainedProblem::FreeBudget(const Budget& budget) const {
  Budget result = budget;
  for (std::size_t r = 0; r < result.limits.size(); ++r) {
    Limit& limit = result.limits[r];
    limit.value = static_cast<double>(capacity[r] - fixed_cost[r]);
    const Resource& resource = limit.resource;
    if (resource.per_weight && !free.units.empty()) limit.value /= static_cast<double>(free.total_weights());
    limit.value /= resource.scale;
  }
  return result;
}

ConstrainedProblem Constrain(const AllocationProblem& problem, const AllocateOptions& options) {
  ConstrainedProblem result;
  result.columns = AllowedColumns(problem, options.bits);
  result.fixed_bits.assign(problem.units.size(), kFree);
  for (const Pin& pin : options.pins) {
    (void)ColumnOf(problem, pin.bits, fmt::format("allocate.pins: {}", pin.pattern));
    ForEachMatch(problem, "allocate.pins", pin.pattern, [&](std::size_t u) { result.fixed_bits[u] = pin.bits; });
  }
  for (const std::string& pattern : options.exclude) {
    ForEachMatch(problem, "allocate.exclude", pattern, [&](std::size_t u) { result.fixed_bits[u] = kFloatBits; });
  }
  const auto excluded = std::count(result.fixed_bits.begin(), result.fixed_bits.end(), kFloatBits);
  if (excluded > 0 && excluded == static_cast<std::int64_t>(problem.units.size())) {
    throw Error(ErrorKind::kUsage, "allocate.exclude leaves no layer to quantize");
  }
  const std::vector<int> group = Groups(problem, options, result.fixed_bits);
  SpreadPins(problem, group, options.groups.size(), result.fixed_bits);

  std::vector<std::size_t> order(problem.units.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return problem.units[a].name < problem.units[b].name; });

  const std::vector<Limit>& limits = options.budget.limits;
  result.fixed_cost.assign(limits.size(), 0);
  for (const std::size_t u : order) {
    const int bits = result.fixed_bits[u];
    if (bits == kFloatBits) {
      ChargeFloat(problem.units[u], limits, result.fixed_cost);
      continue;
    }
    result.weights += problem.units[u].weights;
    if (bits == kFree) continue;
    for (std::size_t r = 0; r < limits.size(); ++r) {
      const std::int64_t cost = Cost(problem.units[u], bits, limits[r].resource);
      result.fixed_cost[r] += cost;
      result.pinned = result.pinned || cost > 0;
    }
    result.fixed_loss_rise += problem.loss_rise[u][ColumnOf(problem, bits, "allocate.pins")];
  }
  for (const Limit& limit : limits) result.capacity.push_back(Capacity(result.weights, limit));

  for (const std::size_t column : result.columns) result.free.widths.push_back(problem.widths[column]);
  std::vector<std::vector<std::size_t>> members(options.groups.size());
  for (const std::size_t u : order) {
    if (group[u] != kNoGroup && result.fixed_bits[u] == kFree) members[group[u]].push_back(u);
  }
  for (const std::size_t u : order) {
    if (result.fixed_bits[u] != kFree) continue;
    if (group[u] == kNoGroup) {
      result.layers.push_back({u});
    } else if (members[group[u]].front() == u) {
      result.layers.push_back(members[group[u]]);
    }
  }
  for (const auto& layers : result.layers) {
    std::vector<Unit> units;
    std::vector<std::vector<double>> rises;
    std::vector<double> sum(result.columns.size(), 0.0);
    for (const std::size_t u : layers) {
      units.push_back(problem.units[u]);
      units.back().coherence = Selected(problem.units[u].coherence, result.columns);
      rises.push_back(Selected(problem.loss_rise[u], result.columns));
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += rises.back()[k];
    }
    result.free.units.push_back(Merged(std::move(units), rises));
    result.free.loss_rise.push_back(std::move(sum));
  }
  return result;
}

std::vector<int> TableWidths(const AllocateOptions& options) {
  std::vector<int> widths = options.bits;
  for (const Pin& pin : options.pins) widths.push_back(pin.bits);
  std::sort(widths.begin(), widths.end());
  widths.erase(std::unique(widths.begin(), widths.end()), widths.end());
  return widths;
}

}  // namespace bitplan
