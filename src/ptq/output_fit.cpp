#include "ptq/output_fit.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <limits>

#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"

namespace bitplan {
namespace {

constexpr std::int64_t kKeptValues = std::int64_t{1} << 26;  // float32: 256 MiB

std::int64_t ChannelDim(const Layer& layer, const torch::Tensor& output) {
  const auto behind = layer.is_convolution() ? static_cast<std::int64_t>(layer.position_dims()) : 0;
  return output.dim() - 1 - behind;
}

// [channels] spread over one dimension of a tensor with `dims` dimensions.
torch::Tensor Along(const torch::Tensor& values, std::int64_t dim, std::int64_t dims) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(dims), 1);
  shape[static_cast<std::size_t>(dim)] = values.size(0);
  return values.reshape(shape);
}

}  // namespace

OutputReference::OutputReference(const Network& network, const std::vector<bool>& changed,
                                 const torch::Tensor& images) {
  const std::vector<bool> feeds_batch_norm = FeedsBatchNorm(network);
  std::vector<torch::Tensor> probe(network.layers.size());
  const auto keep = [&](std::size_t index, const torch::Tensor& output) {
    if (!feeds_batch_norm[index]) probe[index] = output;
  };
  const std::int64_t tried = std::min<std::int64_t>(images.size(0), 8);
  {
    torch::jit::Module module = network.module;
    const Tap tap(network, module,
                  {.on_layer_input = nullptr, .on_layer_output = keep, .on_batch_norm_input = nullptr});
    (void)RunForward(module, images.slice(0, 0, tried));
  }
  rows_.emplace(network, images);
  std::int64_t values = 0;
  for (std::size_t index = 0; index < probe.size(); ++index) {
    const Layer& layer = network.layers[index];
    if (!changed[index] || !probe[index].defined() || layer.uses != 1 || !rows_->Known(index)) continue;
    if (!layer.puts_out_products()) continue;
    layers_.push_back(index);
    values += probe[index].numel() / tried;
  }
  if (layers_.empty()) return;
  images_ = images.size(0);
  kept_ = std::clamp<std::int64_t>(kKeptValues / std::max<std::int64_t>(values, 1), 1, images_);
  outputs_.resize(layers_.size());
}

torch::Tensor OutputReference::Wanted(std::size_t layer, const torch::Tensor& output) const {
  return kept_ == images_ ? output : rows_->Of(layer, output, images_, 0, kept_);
}

void OutputReference::Keep(std::size_t layer, const torch::Tensor& output) {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
  if (found == layers_.end() || *found != layer || !rows_->Fits(layer, output, images_)) return;
  outputs_[static_cast<std::size_t>(found - layers_.begin())] = Wanted(layer, output).clone();
}

std::optional<OutputReference::Pair> OutputReference::Find(std::size_t layer, const torch::Tensor& output) const {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), layer);
  if (found == layers_.end() || *found != layer || !rows_->Fits(layer, output, images_)) return std::nullopt;
  const torch::Tensor& target = outputs_[static_cast<std::size_t>(found - layers_.begin())];
  if (!target.defined()) return std::nullopt;
  torch::Tensor wanted = Wanted(layer, output);
  if (wanted.sizes() != target.sizes()) return std::nullopt;
  return Pair{std::move(wanted), target};
}

std::vector<bool> ChangedLayers(const Network& network, const torch::jit::Module& quantized) {
  std::vector<bool> changed;
  for (const Layer& layer : network.layers) {
    changed.push_back(!torch::equal(GetTensor(network.module, layer.parameter), GetTensor(quantized, layer.parameter)));
  }
  return changed;
}

torch::Tensor FitOutput(const Layer& layer, torch::jit::Module& quantized, const OutputReference::Pair& pair,
                        const torch::Tensor& output, bool one_scale, const FactorLimit& limit) {
  const auto& [used, target] = pair;
  const std::int64_t channel = ChannelDim(layer, used);
  std::vector<std::int64_t> dims;
  for (std::int64_t d = 0; d < used.dim(); ++d) {
    if (d != channel) dims.push_back(d);
  }
  constexpr double kConstant = 1e-10;  // share of a channel's power that may be rounding
  torch::Tensor mean_q, mean_f;        // zero through the origin
  if (layer.bias.empty()) {
    mean_q = torch::zeros({used.size(channel)});
    mean_f = mean_q;
  } else {
    mean_q = used.mean(dims);
    mean_f = target.mean(dims);
  }
  const torch::Tensor centred = used - Along(mean_q, channel, used.dim());
  torch::Tensor variance = centred.square().mean(dims);
  torch::Tensor covariance = (centred * (target - Along(mean_f, channel, used.dim()))).mean(dims);
  if (one_scale) {
    covariance = covariance.sum().expand_as(mean_q);
    variance = variance.sum().expand_as(mean_q);
  }
  // A channel that puts out a constant, as one without weights does, has nothing to scale.
  torch::Tensor varied =
      variance.gt(kConstant * (mean_q.square() + variance)) & variance.ge(std::numeric_limits<float>::min());
  if (one_scale) varied = varied.any().expand_as(varied);
  torch::Tensor scale = torch::where(varied, covariance / variance, torch::ones_like(mean_q));
  if (limit) scale = limit(scale);
  const torch::Tensor shift = mean_f - scale * mean_q;

  const std::int64_t spread = ChannelDim(layer, output);
  output.mul_(Along(scale, spread, output.dim()));
  if (layer.bias.empty()) return scale;
  output.add_(Along(shift, spread, output.dim()));
  GetTensor(quantized, layer.bias).mul_(scale).add_(shift);
  return scale;
}

}  // namespace bitplan
