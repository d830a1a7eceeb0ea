// Whether a network's answer to an image depends on that image alone.
//
// It does not where a trace was made in training mode (batch norm normalizes with the statistics of the batch, dropout
// is active), nor where forward draws random numbers or looks at the whole batch. Then no accuracy is a property of the
// network: it depends on how many images are measured at once, and which.
#pragma once

#include <torch/types.h>

#include <string>

#include "bitplan/models/network.h"

namespace bitplan {

// One line that says what the answers depend on besides the image, how much, why (where the operations tell) and what
// helps; empty when they depend on the image alone. Tries the same batch twice, and images alone as well as in the
// batch. `images`: float32 normalized [n, ...], n > 1; 16 are enough. The network is left as it was.
[[nodiscard]] std::string WhyAnswersVary(const Network& network, const torch::Tensor& images);

}  // namespace bitplan
