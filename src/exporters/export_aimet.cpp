// The layers of a plan as encodings of AIMET (format version 1.0.0): width, scale and offset of every weight. With the
// weights of quantized.pt in the model, sim.load_encodings gives them back.
//
// A value is scale * (integer + offset), integers from 0 to 2^bw - 1, scale > 0. A grid half has one bit more and half
// of the scale (odd integers); a negative scale turns the sign of the integers, so its offset is one more. Widths below
// 2 are not in the format: they take 2, on the same grid.
// Source: github.com/qualcomm/aimet, Docs/techniques/encoding_spec.rst, section "Version 1.0.0", commit 38dc892.
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bitplan/core/error.h"
#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "exporters/onnx_weights.h"
#include "io/json_text.h"

namespace bitplan {
namespace {

constexpr int kNarrowestAimet = 2;

nlohmann::ordered_json AimetEncoding(const QuantizedLayer& layer) {
  const IntegerWeight weight = IntegersOf(layer);
  const int bits = std::max(weight.bits, kNarrowestAimet);
  const torch::Tensor all = weight.scales.contiguous();
  std::vector<float> scales;
  std::vector<int> offsets;
  bool symmetric = true;
  for (std::int64_t i = 0; i < all.numel(); ++i) {
    const float scale = all.data_ptr<float>()[i];
    const bool turned = scale < 0;
    scales.push_back(scale == 0.0F ? 1.0F : std::abs(scale));  // a channel of zeros: any scale holds it
    offsets.push_back(-(1 << (bits - 1)) + (turned ? 1 : 0));
    symmetric = symmetric && !turned;
  }
  return {{"name", layer.parameter}, {"enc_type", all.numel() == 1 ? "PER_TENSOR" : "PER_CHANNEL"},
          {"dtype", "INT"},          {"bw", bits},
          {"is_sym", symmetric},     {"scale", scales},
          {"offset", offsets}};
}

}  // namespace

// The grid half would take a bit more, widths below 2 take 2. A scale below zero is another offset.
HeldLayer AimetHolds(const Layer&) {
  return {.limits = {.zero = {2, 3, 4, 5, 6, 7, 8}, .half = {}, .activations = false}};
}

void ExportAimet(const ExportInputs& inputs, const ExportFiles& files) {
  using Json = nlohmann::ordered_json;
  Json encodings = Json::array(), excluded = Json::array();
  int widest = 0;
  bool symmetric = true;
  for (const QuantizedLayer& layer : inputs.network.layers) {
    encodings.push_back(AimetEncoding(layer));
    widest = std::max(widest, encodings.back().at("bw").get<int>());
    symmetric = symmetric && encodings.back().at("is_sym").get<bool>();
  }
  for (const PlanLayer& layer : inputs.plan.layers) {
    const auto& known = inputs.network.layers;
    const bool planned =
        std::any_of(known.begin(), known.end(), [&](const QuantizedLayer& one) { return one.name == layer.name; });
    if (!planned) excluded.push_back(layer.name);
  }
  const Json file = {{"version", "1.0.0"},
                     {"activation_encodings", Json::array()},
                     {"param_encodings", encodings},
                     {"excluded_layers", excluded},
                     {"quantizer_args",
                      {{"activation_bitwidth", 16},
                       {"dtype", "int"},
                       {"is_symmetric", symmetric},
                       {"param_bitwidth", widest},
                       {"per_channel_quantization", inputs.plan.quantizer.granularity != "tensor"},
                       {"quant_scheme", "post_training_tf"}}}};
  WriteFileAtomically(files.first, JsonText(file, 2) + "\n");
}

}  // namespace bitplan
