// Which activations of a network are live at once (core/activation_memory.h), found by watching one image pass.
//
// The pass is of an image of zeros; what only other images reach is not seen. Every tensor that a layer reads goes
// through a view there, in the place where a plan puts its quantizer, so what reads it behind the quantizer is told
// from what reads it in float. Weights, buffers and constants of the graph are no activations, and neither are tensors
// without dimensions.
#pragma once

#include "bitplan/core/activation_memory.h"
#include "bitplan/models/network.h"

namespace bitplan {

// Steps that never take most are left out.
[[nodiscard]] ActivationTimeline FindActivationTimeline(const Network& network);

}  // namespace bitplan
