#include "bitplan/exporters/quantized_network.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <set>

#include "bitplan/core/error.h"
#include "bitplan/quantizers/packing.h"
#include "models/inlined_graph.h"
#include "models/stored_tensors.h"

namespace bitplan {
namespace {

constexpr std::int64_t kScaleBytes = 4;

bool SameNumbers(const torch::Tensor& a, const torch::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::equal(static_cast<const char*>(a.data_ptr()), static_cast<const char*>(a.data_ptr()) + a.nbytes(),
                    static_cast<const char*>(b.data_ptr()));
}

}  // namespace

std::vector<std::int64_t> QuantizedLayer::shape() const {
  std::vector<std::int64_t> sizes = blocks.front().codes.sizes().vec();
  const auto channel = static_cast<std::size_t>(blocks.front().channel_dim);
  for (std::size_t k = 1; k < blocks.size(); ++k) sizes[channel] += blocks[k].codes.size(blocks[k].channel_dim);
  return sizes;
}

torch::Tensor QuantizedLayer::Values() const {
  if (blocks.size() == 1) return blocks.front().Values();
  std::vector<torch::Tensor> values;
  for (const QuantizedTensor& block : blocks) values.push_back(block.Values());
  return torch::cat(values, blocks.front().channel_dim);
}

std::int64_t QuantizedNetwork::payload_bytes() const {
  std::int64_t bytes = 0;
  for (const QuantizedLayer& layer : layers) {
    for (const QuantizedTensor& block : layer.blocks) {
      bytes += PackedBytes(block.codes.numel(), block.bits) + 1;
      if (block.bits > 0) bytes += kScaleBytes * block.scales.numel();
    }
  }
  return bytes;
}

std::int64_t QuantizedNetwork::float_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : others) bytes += static_cast<std::int64_t>(tensor.nbytes());
  return bytes;
}

QuantizedNetwork DescribeCodes(const Network& network, const std::vector<QuantizedTensor>& weights) {
  QuantizedNetwork result;
  for (std::size_t l = 0; l < network.layers.size(); ++l) {
    if (weights[l].defined()) {
      result.layers.push_back({network.layers[l].name, network.layers[l].parameter, {weights[l]}});
    }
  }
  return result;
}

QuantizedNetwork DescribeQuantized(const Network& network, const torch::jit::Module& module,
                                   const std::vector<QuantizedTensor>& weights) {
  QuantizedNetwork result = DescribeCodes(network, weights);
  AddOthers(result, module);
  return result;
}

void AddOthers(QuantizedNetwork& network, const torch::jit::Module& module) {
  const torch::NoGradGuard no_grad;
  std::vector<std::pair<std::string, torch::Tensor>> known;  // by every tensor the name that holds its numbers
  for (const QuantizedLayer& layer : network.layers) {
    const torch::Tensor weight = GetTensor(module, layer.parameter);
    if (weight.sizes() != c10::IntArrayRef(layer.shape()) ||
        !SameNumbers(weight.detach().contiguous(), layer.Values())) {
      throw Error(ErrorKind::kData, "the weights of layer " + layer.name + " are not those of its codes");
    }
    known.emplace_back(layer.parameter, weight);
  }
  const auto name_of = [&](const torch::Tensor& tensor) -> const std::string* {
    const auto same = [&](const auto& entry) {
      return entry.second.data_ptr() == tensor.data_ptr() && entry.second.sizes() == tensor.sizes() &&
             entry.second.strides() == tensor.strides();
    };
    const auto found = std::find_if(known.begin(), known.end(), same);
    return found == known.end() ? nullptr : &found->first;
  };
  const StoredTensors stored(module, *InlinedGraph(module));
  for (std::size_t i = 0; i < stored.size(); ++i) {
    if (name_of(stored[i].value) != nullptr) continue;
    network.others.emplace_back(stored[i].path, stored[i].value.detach().contiguous().clone());
    known.emplace_back(stored[i].path, stored[i].value);
  }
  const auto tie = [&](const std::string& path, const torch::Tensor& tensor) {
    if (!tensor.defined() || tensor.numel() == 0) return;
    const std::string* const name = name_of(tensor);
    if (name != nullptr && *name != path) network.tied[path] = *name;
  };
  for (const auto& entry : module.named_parameters()) tie(entry.name, entry.value);
  for (const auto& entry : module.named_attributes()) {
    if (entry.value.isTensor()) tie(entry.name, entry.value.toTensor());
  }
}

void WriteWeights(const QuantizedNetwork& network, torch::jit::Module& module) {
  const torch::NoGradGuard no_grad;
  const auto put = [&](const std::string& path, const torch::Tensor& value) {
    const torch::Tensor slot = GetTensor(module, path);
    if (slot.sizes() != value.sizes()) {
      throw Error(ErrorKind::kData, "'" + path + "' has another shape in the model than in the quantized network");
    }
    slot.copy_(value);
  };
  for (const QuantizedLayer& layer : network.layers) put(layer.parameter, layer.Values());
  for (const auto& [name, value] : network.others) {
    const bool attribute = name.find_first_of(" [") == std::string::npos;  // no constant, nothing inside a list
    if (attribute) put(name, value);
  }
}

}  // namespace bitplan
