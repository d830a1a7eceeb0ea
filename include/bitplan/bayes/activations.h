// Activations exchanged and rounded in the TorchScript graph of a network, so that it works on any model and the saved
// model contains it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bitplan/models/network.h"
#include "bitplan/quantizers/affine_quantizer.h"

namespace bitplan {

struct ActivationFunction {
  const char* name;
  const char* description;
  double low, high;  // where the function is clipped; infinite: nowhere
  int bits = 0;      // > 0: rounded to 2^bits levels without a zero, evenly over [low, high]
};

// relu, clipped-relu, hard-tanh, signed-levels.
[[nodiscard]] const std::vector<ActivationFunction>& ActivationFunctions();
[[nodiscard]] const ActivationFunction& FindActivationFunction(const std::string& name);  // Error(kUsage)

// A network of its own with `function` in the place of every relu; shares no tensor with `network`. Error(kData) when
// the network has no relu and `function` is another.
[[nodiscard]] Network WithActivation(const Network& network, const ActivationFunction& function);

// The quantizer in front of a layer. Its step is a scalar buffer of the root module, so that it can be trained
// (SetTensor) and is saved with it.
struct ActivationQuantizer {
  std::size_t layer;          // of Network::layers
  std::string step;           // buffer path of the scale
  AffineQuantizer quantizer;  // 1..8 bits, at odd halves for inputs with a sign; its scale is the buffer
};

// A network of its own whose layers, all but the first, read inputs rounded to `bits`; the network's own inputs stay as
// they are (8-bit pixels, usually). `is_signed`: one entry per layer. Steps are 1 until they are set. Rounding passes
// gradients straight through where it does not clip, and gives the step that of Esser et al. 2020 (LSQ).
// Error(kData) when a layer is not found in the graph.
[[nodiscard]] Network WithQuantizedActivations(const Network& network, int bits, const std::vector<bool>& is_signed,
                                               std::vector<ActivationQuantizer>& quantizers);

}  // namespace bitplan
