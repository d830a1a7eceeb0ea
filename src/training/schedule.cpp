#include "bitplan/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace bitplan {

double OneCycleRate(std::int64_t step, std::int64_t total, double peak) {
  const std::int64_t rising = std::max<std::int64_t>(1, total / 4);
  if (step < rising) return peak * static_cast<double>(step + 1) / static_cast<double>(rising);
  const double falling = static_cast<double>(step + 1 - rising) / static_cast<double>(total - rising + 1);
  return peak * 0.5 * (1.0 + std::cos(std::numbers::pi * falling));
}

}  // namespace bitplan
