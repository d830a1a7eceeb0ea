// The widths of a plan for tools that take widths and round by themselves.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/plan.h"
#include "bitplan/exporters/quantized_network.h"

namespace bitplan {

inline constexpr int kWidestPlanned = 8;  // above it a layer is left alone

struct WidthLimits {
  std::string format;  // for messages
  int narrowest = 1;   // bits that the tool can hold
  int widest = kWidestPlanned;
  bool only_linear = false;  // it rounds no convolutions
};

// The layers that the plan rounds, in its order. Error(kData) that names layer and recipe key where the tool could not
// do what the plan says.
[[nodiscard]] std::vector<PlanLayer> PlannedWidths(const Plan& plan, const WidthLimits& limits);

// For tools that know a weight by the module whose `weight` it is. Error(kData) that names a rounded weight with
// another name: of a recurrent layer, of an in-projection of attention.
void RequireModules(const QuantizedNetwork& network, const std::string& format);

}  // namespace bitplan
