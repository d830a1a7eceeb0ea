#include "exporters/planned_widths.h"

#include <fmt/format.h>

#include "bitplan/core/error.h"

namespace bitplan {

std::vector<PlanLayer> PlannedWidths(const Plan& plan, const WidthLimits& limits) {
  std::vector<PlanLayer> planned;
  for (const PlanLayer& layer : plan.layers) {
    if (layer.bits > kWidestPlanned) continue;
    if (limits.only_linear && layer.kind != "linear") {
      throw Error(ErrorKind::kData, fmt::format("{}: layer {} is a {}, it rounds linear layers alone; leave the layer "
                                                "alone with allocate.exclude, or export --to another format",
                                                limits.format, layer.name, layer.kind));
    }
    if (layer.bits < limits.narrowest || layer.bits > limits.widest) {
      throw Error(ErrorKind::kData,
                  fmt::format("{}: layer {} has {} bits, it can hold {} to {}; set allocate.bits to these widths",
                              limits.format, layer.name, layer.bits, limits.narrowest, limits.widest));
    }
    planned.push_back(layer);
  }
  return planned;
}

void RequireModules(const QuantizedNetwork& network, const std::string& format) {
  for (const QuantizedLayer& layer : network.layers) {
    if (layer.name != layer.parameter) continue;  // without ".weight"
    throw Error(
        ErrorKind::kData,
        fmt::format("{}: layer {} is no `weight` of a module, and the format can name no other; leave the layer alone "
                    "with allocate.exclude, or export --to another format",
                    format, layer.name));
  }
}

}  // namespace bitplan
