// Reports as single HTML files that need nothing else.
#pragma once

#include <string>
#include <vector>

#include "bitplan/report/comparison.h"
#include "report/gnuplot.h"

namespace bitplan {

// Text with its markup characters escaped.
[[nodiscard]] std::string HtmlText(const std::string& text);
[[nodiscard]] std::string HtmlPage(const std::string& title, const std::string& body);
// Drawings inside the page, with their captions.
[[nodiscard]] std::string HtmlFigures(const std::vector<DrawnFigure>& figures);

[[nodiscard]] std::string ComparisonHtml(const Comparison& comparison, const std::vector<DrawnFigure>& figures);

}  // namespace bitplan
