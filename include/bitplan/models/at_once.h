// How many images pass a network at once without taking more memory than a bound that does not grow with the images.
#pragma once

#include <cstdint>

#include "bitplan/models/network.h"

namespace bitplan {

// Values of the largest input or output of a layer, all images together: float32, 256 MiB. A pass without gradients
// holds about four of them at its widest place. 1,024 images of CIFAR-10 in VGG-16 take exactly as much.
inline constexpr std::int64_t kValuesAtOnce = std::int64_t{1} << 26;

// Images, at least one, whose largest layer input or output holds at most kValuesAtOnce values. What
// runs between the layers is taken to be no larger.
[[nodiscard]] std::int64_t ImagesAtOnce(const Network& network);

}  // namespace bitplan
