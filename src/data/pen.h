// A pen that draws signs into pictures of 28x28 pixels, no two times alike.
//
// A picture is one of the styles of its sign, bent by a smooth displacement field, slanted, turned, scaled and moved;
// drawn with a stroke of varying width; sometimes smeared over by a stray stroke or a gap; blurred and noisy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/data/dataset.h"

namespace bitplan {

// Units: 1/100 of the sign's height, x to the right, y down.
struct StrokePoint {
  float x, y;
};
// A smooth curve through its points (two points: a straight line). Corners are where one stroke ends and the next
// begins.
using Stroke = std::vector<StrokePoint>;
using SignStyle = std::vector<Stroke>;

// How people write the ten digits: styles of `digit` (0..9), at least two.
[[nodiscard]] const std::vector<SignStyle>& DigitStyles(int digit);
// Capital letters A to Z without I and O, which people write as 1 and 0: styles of `letter` (0..23), at least two.
inline constexpr int kLetters = 24;
[[nodiscard]] const std::vector<SignStyle>& LetterStyles(int letter);

// `count` pictures of `signs` signs in turn, labels 0 .. signs - 1, in a data set NAME/SPLIT: uint8 [count, 1, 28, 28].
// The same for every number of threads.
[[nodiscard]] Dataset DrawSigns(const std::string& name, const std::string& split, std::int64_t count, int signs,
                                const std::vector<SignStyle>& (*styles)(int sign), std::uint64_t seed);

}  // namespace bitplan
