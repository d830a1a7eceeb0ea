#include "bitplan/models/batch_norm.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <limits>

#include "bitplan/models/tap.h"

namespace bitplan {

ChannelStatistics StatisticsOf(const torch::Tensor& input) {
  const torch::NoGradGuard no_grad;
  std::vector<std::int64_t> dims = {0};
  for (std::int64_t d = 2; d < input.dim(); ++d) dims.push_back(d);
  const auto [var, mean] = torch::var_mean(input, dims, /*unbiased=*/false);
  return {mean, var};
}

ChannelStatistics Transferred(const ChannelStatistics& trained, const ChannelStatistics& now,
                              const ChannelStatistics& reference) {
  torch::Tensor ratio = now.var / reference.var;
  const torch::Tensor varied = reference.var.ge(std::numeric_limits<float>::min()) & ratio.isfinite();
  ratio = torch::where(varied, ratio, torch::ones_like(ratio));
  return {now.mean + (trained.mean - reference.mean) * ratio.sqrt(), trained.var * ratio};
}

std::vector<bool> FeedsBatchNorm(const Network& network) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> outputs(network.layers.size());
  std::vector<bool> feeds(network.layers.size(), false);
  const auto keep = [&](std::size_t layer, const torch::Tensor& output) { outputs[layer] = output; };
  const auto find = [&](std::size_t, const torch::Tensor& input) {
    for (std::size_t l = 0; l < outputs.size(); ++l) {
      if (outputs[l].defined() && outputs[l].data_ptr() == input.data_ptr()) feeds[l] = true;
    }
  };
  std::vector<std::int64_t> shape = network.input_shape;
  shape.insert(shape.begin(), 2);
  torch::jit::Module module = network.module;
  const Tap tap(network, module, {.on_layer_input = nullptr, .on_layer_output = keep, .on_batch_norm_input = find});
  (void)RunForward(module, torch::zeros(shape, network.input_type));
  return feeds;
}

}  // namespace bitplan
