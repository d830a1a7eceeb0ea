// Biases as integer kernels have them.
#pragma once

#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"

namespace bitplan {

// A kernel that multiplies integers adds its bias as a whole number of steps, each (scale of the input) x (scale of the
// weights of the channel); a batch norm right behind a convolution is part of both. So the biases of layers whose
// weights and inputs are rounded to at most 8 bits move to the nearest step: the layer's own, or that of the batch norm
// behind it. The network in `applied` then computes what the runtime computes. Changes `applied` in place, after all
// corrections. A layer stays as it is where one of its channels would move by more than a twentieth of the deviation
// that its batch norm gives it, as one that is dead on training images.
void RoundBiases(const Network& network, AppliedPlan& applied);

}  // namespace bitplan
