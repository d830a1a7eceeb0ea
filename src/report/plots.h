// Figures of a comparison by gnuplot: each has its data and its script beside the SVG.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/report/comparison.h"

namespace bitplan {

struct Figure {
  std::string name;     // of the files, without extension
  std::string caption;  // one sentence
  std::string svg;      // empty: gnuplot was not there or failed
};

// Writes NAME.dat, NAME.gp and NAME.svg into `folder`.
[[nodiscard]] std::vector<Figure> DrawFigures(const Comparison& comparison, const std::filesystem::path& folder);

}  // namespace bitplan
