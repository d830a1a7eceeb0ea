// The learning rate over a run: one cycle (Smith and Topin 2018, arXiv 1708.07120, with a cosine for the way down).
#pragma once

#include <cstdint>

namespace bitplan {

// Learning rate of step 0 .. total - 1: rises linearly over the first quarter of the steps to `peak`, then falls along
// half a cosine towards 0.
[[nodiscard]] double OneCycleRate(std::int64_t step, std::int64_t total, double peak);

}  // namespace bitplan
