// The report of a comparison as one HTML file that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "bitplan/report/comparison.h"
#include "report/plots.h"

namespace bitplan {

[[nodiscard]] std::string ComparisonHtml(const Comparison& comparison, const std::vector<Figure>& figures);

}  // namespace bitplan
