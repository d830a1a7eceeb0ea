#include "verify/output_fit.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>

#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr std::int64_t kKeptValues = std::int64_t{1} << 26;  // float32: 256 MiB

std::int64_t ChannelDim(const Layer& layer, const torch::Tensor& output) {
  return layer.kind == "conv2d" ? 1 : output.dim() - 1;
}

// [channels] spread over one dimension of a tensor with `dims` dimensions.
torch::Tensor Along(const torch::Tensor& values, std::int64_t dim, std::int64_t dims) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(dims), 1);
  shape[static_cast<std::size_t>(dim)] = values.size(0);
  return values.reshape(shape);
}

}  // namespace

OutputReference::OutputReference(const Network& network, const torch::jit::Module& quantized,
                                 const torch::Tensor& images) {
  const std::vector<bool> feeds_batch_norm = FeedsBatchNorm(network);
  std::vector<torch::Tensor> probe(network.layers.size());
  const auto keep = [&](std::size_t index, const torch::Tensor& output) {
    if (!feeds_batch_norm[index]) probe[index] = output;
  };
  {
    torch::jit::Module module = network.module;
    const Tap tap(network, module,
                  {.on_layer_input = nullptr, .on_layer_output = keep, .on_batch_norm_input = nullptr});
    module.forward({images.slice(0, 0, std::min<std::int64_t>(images.size(0), 2))});
  }
  std::int64_t values = 0;
  for (std::size_t index = 0; index < probe.size(); ++index) {
    const Layer& layer = network.layers[index];
    if (!probe[index].defined() || layer.uses != 1) continue;
    if (torch::equal(GetTensor(network.module, layer.parameter), GetTensor(quantized, layer.parameter))) continue;
    layers_.push_back(index);
    values += probe[index].numel() / probe[index].size(0);
  }
  if (layers_.empty()) return;
  const std::int64_t count = std::clamp<std::int64_t>(kKeptValues / values, 1, images.size(0));
  for (const std::size_t index : layers_) {
    std::vector<std::int64_t> shape = probe[index].sizes().vec();
    shape[0] = count;
    outputs_.push_back(torch::empty(shape));
  }
  filled_.assign(layers_.size(), 0);
}

void OutputReference::Add(std::size_t layer, const torch::Tensor& output) {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
  if (found == layers_.end() || *found != layer) return;
  const auto slot = static_cast<std::size_t>(found - layers_.begin());
  std::int64_t& filled = filled_[slot];
  const std::int64_t count = std::min(output.size(0), outputs_[slot].size(0) - filled);
  if (count <= 0) return;
  outputs_[slot].slice(0, filled, filled + count).copy_(output.slice(0, 0, count));
  filled += count;
}

torch::Tensor OutputReference::Find(std::size_t layer) const {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
  if (found == layers_.end() || *found != layer) return {};
  return outputs_[static_cast<std::size_t>(found - layers_.begin())];
}

void FitOutput(const Layer& layer, torch::jit::Module& quantized, const torch::Tensor& target,
               const torch::Tensor& output, bool one_scale) {
  const std::int64_t channel = ChannelDim(layer, output);
  std::vector<std::int64_t> dims;
  for (std::int64_t d = 0; d < output.dim(); ++d) {
    if (d != channel) dims.push_back(d);
  }
  const torch::Tensor used = output.slice(0, 0, target.size(0));
  constexpr double kConstant = 1e-10;  // share of a channel's power that may be rounding
  torch::Tensor mean_q, mean_f;        // zero through the origin
  if (layer.bias.empty()) {
    mean_q = torch::zeros({output.size(channel)});
    mean_f = mean_q;
  } else {
    mean_q = used.mean(dims);
    mean_f = target.mean(dims);
  }
  const torch::Tensor centred = used - Along(mean_q, channel, output.dim());
  torch::Tensor variance = centred.square().mean(dims);
  torch::Tensor covariance = (centred * (target - Along(mean_f, channel, output.dim()))).mean(dims);
  if (one_scale) {
    covariance = covariance.sum().expand_as(mean_q);
    variance = variance.sum().expand_as(mean_q);
  }
  // A channel that puts out a constant, as one without weights does, has nothing to scale.
  const torch::Tensor scale = torch::where(variance > kConstant * (mean_q.square() + variance), covariance / variance,
                                           torch::ones_like(mean_q));
  const torch::Tensor shift = mean_f - scale * mean_q;

  output.mul_(Along(scale, channel, output.dim()));
  GetTensor(quantized, layer.parameter)
      .mul_(Along(scale, layer.output_dim, static_cast<std::int64_t>(layer.shape.size())));
  if (layer.bias.empty()) return;
  output.add_(Along(shift, channel, output.dim()));
  GetTensor(quantized, layer.bias).mul_(scale).add_(shift);
}

}  // namespace bitplan
