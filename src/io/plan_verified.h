// The section `verified` of a plan file.
#pragma once

#include "bitplan/core/plan.h"
#include "io/yaml_source.h"

namespace bitplan {

// Error of `source` that names the line for a key that is missing, unknown, or of another task.
[[nodiscard]] Verification ReadVerification(const YamlSource& source, const YAML::Node& node);

}  // namespace bitplan
