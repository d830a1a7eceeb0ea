// The figures of a comparison.
#pragma once

#include <filesystem>
#include <vector>

#include "bitplan/report/comparison.h"
#include "report/gnuplot.h"

namespace bitplan {

// NAME.dat, NAME.gp and NAME.svg in `folder`.
[[nodiscard]] std::vector<DrawnFigure> DrawFigures(const Comparison& comparison, const std::filesystem::path& folder);

}  // namespace bitplan
