#include "bitplan/models/at_once.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace bitplan {

std::int64_t ImagesAtOnce(const Network& network) {
  std::int64_t largest =
      std::accumulate(network.input_shape.begin(), network.input_shape.end(), std::int64_t{1}, std::multiplies<>());
  for (const Layer& layer : network.layers) {
    largest = std::max(largest, layer.output_values / std::max(1, layer.uses));
  }
  return std::max<std::int64_t>(1, kValuesAtOnce / std::max<std::int64_t>(1, largest));
}

}  // namespace bitplan
