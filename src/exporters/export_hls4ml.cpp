// The widths of a plan as the HLSConfig of hls4ml: hls4ml.converters.convert_from_pytorch_model(model, hls_config=...).
//
// fixed<W,I> has W bits in all, I of them before the point: the numbers k * 2^(I-W). A weight with scales that are not
// one power of two is not among them: hls4ml then rounds by itself, at this width. W is the width of the plan, one more
// on the grid half (odd integers), at least 2; I is the smallest that covers the largest weight of the layer. Names are
// those of torch.fx, which the converter of PyTorch models uses.
// Source: github.com/fastmachinelearning/hls4ml, docs/api/configuration.rst, sections 1 and 2.2, commit ef92ebd (after
// v1.3.0); ap_fixed as AMD's UG1399 describes it.
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/onnx_weights.h"
#include "exporters/planned_widths.h"

namespace bitplan {
namespace {

constexpr int kNarrowestFixed = 2;

// The smallest I with -2^(I-1) <= every weight <= 2^(I-1) - 2^(I-W).
int IntegerBits(const torch::Tensor& values, int bits) {
  const double low = values.min().item<double>(), high = values.max().item<double>();
  const double largest = std::max(-low, high);
  int integer = largest > 0 ? static_cast<int>(std::floor(std::log2(largest))) : 1;
  while (low < -std::ldexp(1.0, integer - 1) || high > std::ldexp(1.0, integer - 1) - std::ldexp(1.0, integer - bits)) {
    ++integer;
  }
  return integer;
}

// As torch.fx names the node of a module: "layer1.0.convA" -> "layer1_0_conv_a", "0" -> "_0".
std::string HlsName(const std::string& path) {
  std::string name;
  bool after_small = false;
  for (const unsigned char c : path) {
    if (std::isupper(c) != 0 && after_small) name += '_';
    after_small = std::islower(c) != 0;
    name += std::isalnum(c) != 0 ? static_cast<char>(std::tolower(c)) : '_';
  }
  return !name.empty() && std::isdigit(static_cast<unsigned char>(name.front())) != 0 ? "_" + name : name;
}

}  // namespace

// The grid half would take a bit more.
HeldLayer Hls4mlHolds(const Layer&) {
  return {.limits = {.zero = {2, 3, 4, 5, 6, 7, 8},
                     .half = {},
                     .negative_scales = false,
                     .rounds_itself = true,
                     .activations = false}};
}

void ExportHls4ml(const ExportInputs& inputs, const ExportFiles& files) {
  RequireModules(inputs.network, "hls4ml");
  std::string text =
      "HLSConfig:\n  Model:\n    Precision: fixed<16,6>\n    ReuseFactor: 1\n    Strategy: Latency\n  LayerName:\n";
  for (const QuantizedLayer& layer : inputs.network.layers) {
    const torch::Tensor values = layer.Values();
    if (values.numel() == 0) continue;
    if (!values.isfinite().all().item<bool>()) {
      throw Error(ErrorKind::kData, "hls4ml: layer " + layer.name + " has weights that are not finite");
    }
    const int bits = std::max(IntegersOf(layer).bits, kNarrowestFixed);
    text += fmt::format("    {}:\n      Precision:\n        weight: fixed<{},{}>\n", HlsName(layer.name), bits,
                        IntegerBits(values, bits));
  }
  WriteFileAtomically(files.first, text);
}

}  // namespace bitplan
