#include "bitplan/core/problem.h"

#include <algorithm>
#include <cmath>

#include "bitplan/core/counted.h"
#include "bitplan/core/error.h"

namespace bitplan {
namespace {

[[noreturn]] void Inconsistent(const std::string& what) {
  throw Error(ErrorKind::kInternal, "inconsistent allocation problem: " + what);
}

void ValidatePercentiles(const std::vector<double>& values, const std::string& where) {
  if (values.empty()) return;
  if (values.size() != static_cast<std::size_t>(kPercentiles)) {
    Inconsistent(where + " has " + Counted(std::ssize(values), "entry", "entries") + ", not " +
                 std::to_string(kPercentiles));
  }
  if (!std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); })) {
    Inconsistent(where + " has an entry that is not finite");
  }
  if (!std::is_sorted(values.begin(), values.end())) Inconsistent(where + " does not ascend");
}

// Costs are products of these with two widths, added up in 64 bits.
void ValidateSums(const std::vector<Unit>& units) {
  constexpr std::int64_t kMost = std::int64_t{1} << 50;
  const auto check = [&](const char* name, std::int64_t Unit::*field) {
    std::int64_t sum = 0;
    for (const Unit& unit : units) {
      if (unit.*field > kMost - sum) {
        Inconsistent(std::string("all ") + name + " together are more than " + std::to_string(kMost));
      }
      sum += unit.*field;
    }
  };
  check("weights", &Unit::weights);
  check("scales", &Unit::scales);
  check("macs", &Unit::macs);
}

void ValidateUnit(const Unit& unit, const std::string& where) {
  if (unit.weights <= 0) Inconsistent(where + ".weights is " + std::to_string(unit.weights) + "; it must be > 0");
  if (unit.scales < 0) Inconsistent(where + ".scales is " + std::to_string(unit.scales) + "; it must be >= 0");
  if (unit.macs < 0) Inconsistent(where + ".macs is " + std::to_string(unit.macs) + "; it must be >= 0");
  ValidatePercentiles(unit.score_percentiles, where + ".score_percentiles");
  ValidatePercentiles(unit.log_sigma_percentiles, where + ".log_sigma_percentiles");
}

}  // namespace

void AllocationProblem::Validate() const {
  if (units.empty()) Inconsistent("units is empty");
  if (widths.empty()) Inconsistent("widths is empty");
  for (std::size_t w = 0; w < widths.size(); ++w) {
    const std::string where = "widths[" + std::to_string(w) + "] is " + std::to_string(widths[w]);
    if (widths[w] < 0 || widths[w] > 8) Inconsistent(where + "; it must be in 0..8");
    if (w > 0 && widths[w] <= widths[w - 1]) Inconsistent(where + "; widths must ascend");
  }
  if (loss_rise.size() != units.size()) {
    Inconsistent("loss_rise has " + Counted(std::ssize(loss_rise), "row") + " for " +
                 Counted(std::ssize(units), "unit"));
  }
  for (std::size_t u = 0; u < units.size(); ++u) {
    const std::string unit = "units[" + std::to_string(u) + "] (" + units[u].name + ")";
    ValidateUnit(units[u], unit);
    const std::string row = "loss_rise[" + std::to_string(u) + "] (" + units[u].name + ")";
    if (loss_rise[u].size() != widths.size()) {
      Inconsistent(row + " has " + Counted(std::ssize(loss_rise[u]), "entry", "entries") + " for " +
                   Counted(std::ssize(widths), "width"));
    }
    const std::vector<double>& coherence = units[u].coherence;
    if (!coherence.empty() && coherence.size() != widths.size()) {
      Inconsistent(unit + ".coherence has " + Counted(std::ssize(coherence), "entry", "entries") + " for " +
                   Counted(std::ssize(widths), "width"));
    }
    for (const double value : coherence) {
      if (!std::isfinite(value) || value <= 0.0) {
        Inconsistent(unit + ".coherence has the entry " + std::to_string(value) + "; it must be finite and > 0");
      }
    }
    for (std::size_t w = 0; w < widths.size(); ++w) {
      if (!std::isfinite(loss_rise[u][w]) || loss_rise[u][w] < 0.0) {
        Inconsistent(row + " at width " + std::to_string(widths[w]) + " is " + std::to_string(loss_rise[u][w]) +
                     "; it must be finite and >= 0");
      }
    }
  }
  ValidateSums(units);
  for (std::size_t r = 0; r < replicates.size(); ++r) {
    const bool fits = replicates[r].size() == units.size() &&
                      std::all_of(replicates[r].begin(), replicates[r].end(), [&](const std::vector<double>& row) {
                        return row.size() == widths.size() && std::all_of(row.begin(), row.end(), [](double v) {
                                 return std::isfinite(v) && v >= 0.0;
                               });
                      });
    if (!fits) Inconsistent("replicates[" + std::to_string(r) + "] is no table of the units and widths");
  }
}

std::int64_t AllocationProblem::total_weights() const {
  std::int64_t total = 0;
  for (const Unit& unit : units) total += unit.weights;
  return total;
}

std::int64_t StoredBits(const Unit& unit, int width) {
  if (!unit.members.empty()) {
    std::int64_t bits = 0;
    for (const Unit& member : unit.members) bits += StoredBits(member, width);
    return bits;
  }
  const std::int64_t payload_bytes = (unit.weights * width + 7) / 8;
  const bool quantized = width >= 1 && width <= 8;
  const std::int64_t scale_bits = quantized ? unit.scales * 32 : 0;
  return payload_bytes * 8 + scale_bits + 8;
}

std::int64_t Cost(const Unit& unit, int width, const Resource& resource) {
  if (unit.members.empty()) return resource.cost(unit, width);
  std::int64_t cost = 0;
  for (const Unit& member : unit.members) cost += Cost(member, width, resource);
  return cost;
}

double CostOfOneBit(const AllocationProblem& problem, const Resource& resource) {
  std::int64_t rise = 0;
  for (const Unit& unit : problem.units) rise += Cost(unit, 8, resource) - Cost(unit, 1, resource);
  return static_cast<double>(rise) / 7.0;
}

std::int64_t Capacity(const AllocationProblem& problem, const Limit& limit) {
  return Capacity(problem.total_weights(), limit);
}

std::int64_t Capacity(std::int64_t total_weights, const Limit& limit) {
  const Resource& resource = limit.resource;
  const double measure = limit.value * (resource.per_weight ? static_cast<double>(total_weights) : resource.scale);
  if (!(measure >= 0.0 && measure < 0x1.0p62)) {
    throw Error(ErrorKind::kUsage, "the budget " + LimitName(limit) + " is " + std::to_string(limit.value) +
                                       "; it must be finite and >= 0");
  }
  // 4.35 bits x 100 weights is 434.99999999999994 in doubles: a whole number is meant.
  const double whole = std::round(measure);
  return static_cast<std::int64_t>(std::abs(measure - whole) <= 1e-12 * measure ? whole : std::floor(measure));
}

std::vector<std::int64_t> Capacities(const AllocationProblem& problem, const Budget& budget) {
  std::vector<std::int64_t> capacities;
  for (const Limit& limit : budget.limits) capacities.push_back(Capacity(problem, limit));
  return capacities;
}

}  // namespace bitplan
