// Activations exchanged and rounded in the TorchScript graph of a network, so that it works on any model and the saved
// model contains it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

struct ActivationFunction {
  const char* name;
  const char* description;
  double low, high;  // where the function is clipped; infinite: nowhere
  int levels = 0;    // > 0: rounded to so many levels without a zero, evenly over [low, high]
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
  std::size_t layer;  // of Network::layers
  std::string step;   // buffer path
  int bits;           // 1..8
  bool is_signed;     // codes at odd halves, symmetric, no zero; otherwise 0 .. 2^bits - 1
};

// A network of its own whose layers, all but the first, read inputs rounded to `bits`; the network's own inputs stay as
// they are (8-bit pixels, usually). `is_signed`: one entry per layer. Steps are 1 until they are set. Rounding passes
// gradients straight through within the levels, and gives the step the gradient of Esser et al. 2020 (LSQ).
// Error(kData) when a layer is not found in the graph.
[[nodiscard]] Network WithQuantizedActivations(const Network& network, int bits, const std::vector<bool>& is_signed,
                                               std::vector<ActivationQuantizer>& quantizers);

// The step with the least mean squared error of rounding `values` (any shape; 1 when all are zero), by a search.
[[nodiscard]] double FitActivationStep(const torch::Tensor& values, int bits, bool is_signed);

}  // namespace bitplan
