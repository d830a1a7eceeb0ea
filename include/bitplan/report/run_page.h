// The page that `bitplan run` and `bitplan verify` leave beside a plan.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/plan.h"

namespace bitplan {

struct RunPageLayer {
  std::optional<double> log2_sigma;      // median over the layer's weights; empty: no posterior was looked at
  std::optional<double> predicted_rise;  // at the width that it has; empty: the table lacks that width
};

struct RunPagePoint {
  double average_bits = 0.0;
  double predicted_rise = 0.0;
};

struct RunPage {
  std::string title;
  Plan plan;
  std::vector<RunPageLayer> layers;  // one per layer of the plan
  std::string rise_unit;             // "nats per sample", or what a peer's metric counts
  std::string curve_allocator;
  std::vector<RunPagePoint> curve;  // ascending
  std::vector<std::string> notes;
};

// The page as HTML that needs nothing else. `plots`: a folder for data, script and SVG of its drawing. Without gnuplot
// the page says so in the place of the drawing.
[[nodiscard]] std::string RunPageHtml(const RunPage& page, const std::filesystem::path& plots);

}  // namespace bitplan
