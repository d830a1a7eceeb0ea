#include "bitplan/core/plan.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "bitplan/core/problem.h"

namespace bitplan {

std::int64_t PlanLayer::weights() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

bool RoundsActivations(const Plan& plan) {
  return std::any_of(plan.layers.begin(), plan.layers.end(),
                     [](const PlanLayer& layer) { return layer.activation_bits <= 16; });
}

double Spent(const Plan& plan, const Resource& resource) {
  if (&resource == &StoredBytes()) return static_cast<double>(plan.achieved.stored_bytes);
  if (resource.kind == ResourceKind::kPeak) return static_cast<double>(plan.achieved.activation_bytes.value_or(0));
  if (resource.kind == ResourceKind::kTimed) return plan.achieved.latency.value_or(0.0);
  std::int64_t cost = 0, weights = 0;
  for (const PlanLayer& layer : plan.layers) {
    if (layer.bits > 8) continue;
    Unit unit;
    unit.weights = layer.weights();
    unit.macs = layer.macs;
    unit.activation_bits = layer.activation_bits;
    cost += Cost(unit, layer.bits, resource);
    weights += unit.weights;
  }
  if (!resource.per_weight) return static_cast<double>(cost);
  return weights == 0 ? 0.0 : static_cast<double>(cost) / static_cast<double>(weights);
}

std::vector<Limit> SpentOnOthers(const Plan& plan) {
  std::vector<Limit> spent;
  for (const Resource& resource : Resources()) {
    if (&resource == &AverageBits() || &resource == &StoredBytes()) continue;
    const bool stated = resource.kind == ResourceKind::kPeak    ? plan.achieved.activation_bytes.has_value()
                        : resource.kind == ResourceKind::kTimed ? plan.achieved.latency.has_value()
                                                                : plan.budget.limits.size() > 1;
    if (stated) spent.push_back({resource, Spent(plan, resource)});
  }
  return spent;
}

std::int64_t FloatWeights::weights() const {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace bitplan
