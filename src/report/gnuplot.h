// Figures drawn by gnuplot: each has its data and its script beside the SVG.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace bitplan {

struct DrawnFigure {
  std::string name;     // of the files, without extension
  std::string caption;  // one sentence
  std::string svg;      // empty: gnuplot was not there or failed
};

struct Drawing {
  std::string name;  // empty: nothing to draw
  std::string caption, data, script;
};

// Colours of lines and points, '#rrggbb', in the order in which curves get them. Each stands out from white by a
// contrast of 3:1 at least (WCAG 2), and from its neighbours in the list by hue and lightness.
[[nodiscard]] const std::vector<std::string>& PlotColours();

// A quoted string of a script.
[[nodiscard]] std::string GnuplotText(const std::string& text);
// Terminal, output NAME.svg, grid, key, and line types 1, 2, ... in the colours above.
[[nodiscard]] std::string GnuplotHeader(const std::string& name, int width = 900, int height = 520);

// Writes NAME.dat, NAME.gp and NAME.svg of every drawing into `folder`.
[[nodiscard]] std::vector<DrawnFigure> Draw(const std::vector<Drawing>& drawings, const std::filesystem::path& folder);

}  // namespace bitplan
