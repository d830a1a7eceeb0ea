#include "bitplan/models/batch_norm.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "bitplan/models/tap.h"

namespace bitplan {

namespace {

// The projection of LetStatisticsFollow, made before the backward pass of the batch norm sees the gradient.
class FollowingStatistics : public torch::autograd::FunctionPreHook {
 public:
  FollowingStatistics(torch::Tensor input, ChannelStatistics statistics, double eps)
      : input_(std::move(input)), statistics_(std::move(statistics)), eps_(eps) {}

  torch::autograd::variable_list operator()(const torch::autograd::variable_list& gradients) override {
    torch::autograd::variable_list projected = gradients;
    if (projected.empty() || !projected[0].defined()) return projected;
    const torch::NoGradGuard no_grad;
    std::vector<std::int64_t> dims = {0}, shape(static_cast<std::size_t>(input_.dim()), 1);
    for (std::int64_t d = 2; d < input_.dim(); ++d) dims.push_back(d);
    shape[1] = input_.size(1);
    const torch::Tensor normalized =
        (input_ - statistics_.mean.reshape(shape)) * (statistics_.var + eps_).rsqrt().reshape(shape);
    const torch::Tensor& g = gradients[0];
    projected[0] = g - g.mean(dims, /*keepdim=*/true) - normalized * (g * normalized).mean(dims, /*keepdim=*/true);
    return projected;
  }

 private:
  torch::Tensor input_;
  ChannelStatistics statistics_;
  double eps_;
};

}  // namespace

void LetStatisticsFollow(const torch::Tensor& input, const torch::Tensor& output, const ChannelStatistics& statistics,
                         double eps) {
  // On the node, not the tensor: an operation in place behind the batch norm takes the tensor away.
  const auto& node = output.grad_fn();
  if (node) node->add_pre_hook(std::make_unique<FollowingStatistics>(input.detach(), statistics, eps));
}

ChannelStatistics StatisticsOf(const torch::Tensor& input) {
  const torch::NoGradGuard no_grad;
  if (input.numel() == 0) {  // no image came: of nothing there are none
    const torch::Tensor none = torch::full({input.size(1)}, std::numeric_limits<float>::quiet_NaN());
    return {none, none.clone()};
  }
  if (input.dim() < 3) {
    const auto [var, mean] = torch::var_mean(input, {0}, /*unbiased=*/false);
    return {mean, var};
  }
  // Over the positions of one channel of one image, which lie side by side, then over the images: ten times as fast as
  // one reduction over all, and as exact, because every part is taken around its own mean.
  constexpr std::int64_t kValues = std::int64_t{1} << 20;  // at once, in the cache
  const torch::Tensor rows = input.flatten(2);
  const std::int64_t images = std::max<std::int64_t>(1, kValues / std::max<std::int64_t>(1, rows[0].numel()));
  std::vector<torch::Tensor> means;
  torch::Tensor within;
  for (const torch::Tensor& part : rows.split(images)) {
    means.push_back(part.mean(2));
    const torch::Tensor squares =
        (part - means.back().unsqueeze(2)).square_().mean(2).sum(0, /*keepdim=*/false, torch::kFloat64);
    within = within.defined() ? within.add_(squares) : squares;
  }
  const torch::Tensor of_images = torch::cat(means).to(torch::kFloat64);
  const torch::Tensor mean = of_images.mean(0);
  const torch::Tensor var = within / static_cast<double>(rows.size(0)) + (of_images - mean).square_().mean(0);
  return {mean.to(torch::kFloat32), var.to(torch::kFloat32)};
}

ChannelStatistics Transferred(const ChannelStatistics& trained, const ChannelStatistics& now,
                              const ChannelStatistics& reference) {
  torch::Tensor ratio = now.var / reference.var;
  const torch::Tensor varied = reference.var.ge(std::numeric_limits<float>::min()) & ratio.isfinite();
  ratio = torch::where(varied, ratio, torch::ones_like(ratio));
  return {now.mean + (trained.mean - reference.mean) * ratio.sqrt(), trained.var * ratio};
}

BatchNormTransfer::BatchNormTransfer(const Network& network, const torch::jit::Module& quantized)
    : network_(network), quantized_(quantized) {
  for (const BatchNorm& norm : network.batch_norms) {
    trained_.push_back(
        {GetTensor(quantized, norm.running_mean).clone(), GetTensor(quantized, norm.running_var).clone()});
  }
}

void BatchNormTransfer::Begin(const torch::Tensor& images) {
  const torch::NoGradGuard no_grad;
  torch::jit::Module module = network_.module;
  const Tap tap(network_, module,
                {.on_layer_input = nullptr, .on_layer_output = nullptr, .on_batch_norm_input = FloatHandler()});
  (void)RunForward(module, images);
}

std::function<void(std::size_t, const torch::Tensor&)> BatchNormTransfer::FloatHandler() {
  reference_.assign(trained_.size(), {});
  return [this](std::size_t index, const torch::Tensor& input) {
    if (input.numel() > 0) reference_[index] = StatisticsOf(input);
  };
}

std::function<void(std::size_t, const torch::Tensor&)> BatchNormTransfer::Handler() {
  return [this](std::size_t index, const torch::Tensor& input) {
    const bool reached = input.numel() > 0 && reference_[index].mean.defined();
    Write(index, reached ? Transferred(trained_[index], StatisticsOf(input), reference_[index]) : trained_[index]);
  };
}

void BatchNormTransfer::Restore() {
  for (std::size_t i = 0; i < trained_.size(); ++i) Write(i, trained_[i]);
}

void BatchNormTransfer::Write(std::size_t index, const ChannelStatistics& statistics) {
  const torch::NoGradGuard no_grad;
  GetTensor(quantized_, network_.batch_norms[index].running_mean).copy_(statistics.mean);
  GetTensor(quantized_, network_.batch_norms[index].running_var).copy_(statistics.var);
}

std::vector<bool> FeedsBatchNorm(const Network& network) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> outputs(network.layers.size());
  std::vector<std::int64_t> versions(network.layers.size(), 0);  // an operation in place leaves the memory, not these
  std::vector<bool> feeds(network.layers.size(), false);
  const auto keep = [&](std::size_t layer, const torch::Tensor& output) {
    if (!network.layers[layer].puts_out_products()) return;
    outputs[layer] = output;
    versions[layer] = output._version();
  };
  const auto find = [&](std::size_t, const torch::Tensor& input) {
    for (std::size_t l = 0; l < outputs.size(); ++l) {
      if (input.numel() == 0 || !outputs[l].defined() || outputs[l].data_ptr() != input.data_ptr()) continue;
      if (outputs[l]._version() == versions[l]) feeds[l] = true;
    }
  };
  std::vector<std::int64_t> shape = network.input_shape;
  shape.insert(shape.begin(), 2);
  torch::jit::Module module = network.module;
  const Tap tap(network, module, {.on_layer_input = nullptr, .on_layer_output = keep, .on_batch_norm_input = find});
  (void)RunForward(module, torch::zeros(shape, network.input_type));
  return feeds;
}

std::vector<bool> CentredLayers(const Network& network, const QuantizerOptions& options) {
  const Centring centring = CentringOf(options);
  std::vector<bool> centred = FeedsBatchNorm(network);
  for (std::size_t l = 0; l < centred.size(); ++l) {
    const Layer& layer = network.layers[l];
    centred[l] = centred[l] ? centring.batch_norm
                            : centring.outputs && layer.uses == 1 && !layer.bias.empty() && layer.puts_out_products();
  }
  return centred;
}

}  // namespace bitplan
