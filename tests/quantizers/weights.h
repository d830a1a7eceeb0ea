#pragma once

#include "support/catch_torch.h"

namespace bitplan {

// Independent N(0, 0.1^2).
inline torch::Tensor Weights(std::vector<std::int64_t> shape, std::uint64_t seed = 3) {
  torch::manual_seed(seed);
  return torch::randn(shape) * 0.1;
}

}  // namespace bitplan
