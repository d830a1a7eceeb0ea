// Weights in codes for tests of what reads and writes them.
#pragma once

#include <fmt/format.h>
#include <torch/types.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/exporters/exporter.h"
#include "bitplan/exporters/quantized_network.h"
#include "bitplan/io/files.h"
#include "bitplan/quantizers/quantized_tensor.h"
#include "io/scratch.h"

namespace bitplan::testing {

inline bool SameBits(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::Tensor one = a.contiguous(), other = b.contiguous();
  return one.sizes() == other.sizes() && one.scalar_type() == other.scalar_type() &&
         std::memcmp(one.data_ptr(), other.data_ptr(), one.nbytes()) == 0;
}

// Codes of every value that the width has, among them both ends; scales of both signs and a zero.
inline QuantizedTensor RandomCodes(int bits, float offset, std::vector<std::int64_t> shape, int channel_dim,
                                   bool per_channel) {
  QuantizedTensor tensor;
  tensor.bits = bits;
  tensor.offset = bits == 0 ? 0.0F : offset;
  tensor.channel_dim = channel_dim;
  const int half = bits == 0 ? 0 : 1 << (bits - 1);
  tensor.codes = bits == 0 ? torch::zeros(shape, torch::kInt8)
                           : torch::randint(-half, half, shape, torch::kInt64).to(torch::kInt8);
  if (bits > 0) tensor.codes.view(-1)[0] = -half;
  if (bits > 0) tensor.codes.view(-1)[-1] = half - 1;
  tensor.scales = torch::randn({per_channel ? shape[static_cast<std::size_t>(channel_dim)] : 1});
  if (per_channel) tensor.scales[0] = 0.0;
  if (bits == 0) tensor.scales.zero_();
  return tensor;
}

// A layer of every width and grid, with scales of its own for every output channel and with one for all: names
// "w0.weight", "w1.weight", ... `plan` gets the same layers.
inline QuantizedNetwork EveryWidth(const std::vector<std::int64_t>& shape, int channel_dim, Plan* plan = nullptr) {
  QuantizedNetwork network;
  for (int bits = 0; bits <= 8; ++bits) {
    for (const float offset : {0.0F, 0.5F}) {
      for (const bool per_channel : {true, false}) {
        const std::string name = fmt::format("w{}", network.layers.size());
        network.layers.push_back(
            {name, name + ".weight", {RandomCodes(bits, offset, shape, channel_dim, per_channel)}});
        if (plan == nullptr) continue;
        PlanLayer layer;
        layer.name = name;
        layer.kind = shape.size() == 2 ? "linear" : "conv2d";
        layer.shape = shape;
        layer.bits = bits;
        layer.grid = network.layers.back().blocks[0].grid();
        plan->layers.push_back(layer);
      }
    }
  }
  return network;
}

// What an exporter that needs no graph writes.
struct Written {
  std::string first, second;
};

inline Written Exported(const std::string& format, const QuantizedNetwork& network, const Plan& plan = {}) {
  const Scratch folder;
  const Exporter& exporter = FindExporter(format);
  const std::filesystem::path first = folder / exporter.file, none = folder / "none";
  const std::filesystem::path second = SecondFile(exporter, first);
  exporter.write({network, plan, none}, {.first = first, .second = second, .name = exporter.file});
  return {ReadFile(first, "export"), second.empty() ? "" : ReadFile(second, "export")};
}

}  // namespace bitplan::testing
