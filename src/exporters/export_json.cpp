// Codes and scales in text, as docs/formats.md describes it.
// A weight is scale * (code + offset) in float32. Numbers are written with the digits that give them back exactly; what
// JSON has no number for is text: "inf", "-inf", "nan".
#include <fmt/format.h>
#include <torch/types.h>

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "bitplan/exporters/exporter.h"
#include "bitplan/io/files.h"
#include "io/json_text.h"

namespace bitplan {
namespace {

std::string Quoted(const std::string& text) { return JsonText(nlohmann::json(text)); }

void AppendNumber(std::string& text, double value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(text), "{}", value);
  } else {
    fmt::format_to(std::back_inserter(text), "\"{}\"", value);
  }
}

template <typename Value>
void AppendList(std::string& text, const torch::Tensor& tensor) {
  const torch::Tensor flat = tensor.contiguous();
  const auto* const values = flat.data_ptr<Value>();
  text += '[';
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    if (i > 0) text += ',';
    if constexpr (std::is_floating_point_v<Value>) {
      AppendNumber(text, values[i]);
    } else {
      fmt::format_to(std::back_inserter(text), "{}", static_cast<std::int64_t>(values[i]));
    }
  }
  text += ']';
}

std::string Shape(c10::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes.begin(), sizes.end(), ",")); }

void AppendLayer(std::string& text, const QuantizedLayer& layer) {
  text += fmt::format("{{\"name\":{},\"parameter\":{},\"shape\":{},\"channel_dim\":{},\"blocks\":[", Quoted(layer.name),
                      Quoted(layer.parameter), Shape(layer.shape()), layer.blocks.front().channel_dim);
  for (std::size_t k = 0; k < layer.blocks.size(); ++k) {
    const QuantizedTensor& block = layer.blocks[k];
    text += fmt::format("{}{{\"bits\":{},\"offset\":{},\"channels\":{},\"scales\":", k == 0 ? "" : ",", block.bits,
                        block.offset, block.codes.size(block.channel_dim));
    AppendList<float>(text, block.bits == 0 ? block.scales.slice(0, 0, 0) : block.scales);
    text += ",\"codes\":";
    AppendList<std::int8_t>(text, block.bits == 0 ? torch::empty({0}, torch::kInt8) : block.codes);
    text += '}';
  }
  text += "]}";
}

}  // namespace

// Every weight; scales of activations have no place.
HeldLayer JsonHolds(const Layer&) { return {.limits = {.activations = false}}; }

void ExportJson(const ExportInputs& inputs, const ExportFiles& files) {
  const QuantizedNetwork& network = inputs.network;
  std::string text = "{\"bitplan\":1,\n\"plan\":" + Quoted(network.plan) + ",\n\"layers\":[";
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    text += l == 0 ? "\n" : ",\n";
    AppendLayer(text, network.layers[l]);
  }
  text += "],\n\"others\":[";
  for (std::size_t i = 0; i < network.others.size(); ++i) {
    const auto& [name, tensor] = network.others[i];
    text += fmt::format("{}{{\"name\":{},\"type\":\"{}\",\"shape\":{},\"values\":", i == 0 ? "\n" : ",\n", Quoted(name),
                        tensor.is_floating_point()             ? "float"
                        : tensor.scalar_type() == torch::kBool ? "bool"
                                                               : "int",
                        Shape(tensor.sizes()));
    if (tensor.is_floating_point()) {
      AppendList<double>(text, tensor.to(torch::kFloat64));
    } else {
      AppendList<std::int64_t>(text, tensor.to(torch::kInt64));
    }
    text += '}';
  }
  text += "],\n\"tied\":" + JsonText(nlohmann::json(network.tied)) + "}\n";
  WriteFileAtomically(files.first, text);
}

}  // namespace bitplan
