// Figures drawn by gnuplot: each has its data and its script beside the SVG.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace bitplan {

struct Figure {
  std::string name;     // of the files, without extension
  std::string caption;  // one sentence
  std::string svg;      // empty: gnuplot was not there or failed
};

struct Drawing {
  std::string name;  // empty: nothing to draw
  std::string caption, data, script;
};

// A quoted string of a script.
[[nodiscard]] std::string GnuplotText(const std::string& text);
// Terminal, output NAME.svg, grid and key.
[[nodiscard]] std::string GnuplotHeader(const std::string& name, int width = 900, int height = 520);

// Writes NAME.dat, NAME.gp and NAME.svg of every drawing into `folder`.
[[nodiscard]] std::vector<Figure> Draw(const std::vector<Drawing>& drawings, const std::filesystem::path& folder);

}  // namespace bitplan
