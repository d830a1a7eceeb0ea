// How people write the ten digits: each style is a few pen strokes, each stroke a smooth curve through its points (two
// points: a straight line). Corners are where one stroke ends and the next begins. Units: 1/100 of the digit's height,
// x to the right, y down.
#pragma once

#include <vector>

namespace bitplan {

struct StrokePoint {
  float x, y;
};
using Stroke = std::vector<StrokePoint>;
using DigitStyle = std::vector<Stroke>;

// Styles of `digit` (0..9), at least two.
[[nodiscard]] const std::vector<DigitStyle>& DigitStyles(int digit);

}  // namespace bitplan
