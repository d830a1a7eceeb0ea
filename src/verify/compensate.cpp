#include "bitplan/verify/compensate.h"

#include <torch/torch.h>

#include <algorithm>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/tap.h"
#include "bitplan/quantizers/quantizer.h"
#include "verify/statistics_pool.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBatch = 256;
constexpr std::int64_t kInputsPerWeight = 8;           // inputs drawn for the moments, per weight of an output channel
constexpr std::int64_t kLeastInputs = 8192;
constexpr double kShrinkages[] = {1.0, 0.5, 0.2, 0.05};
constexpr std::int64_t kColumns = std::int64_t{1} << 24;  // values laid out as columns at once

std::vector<ChannelStatistics> FloatStatistics(const Network& network, const torch::Tensor& images) {
  torch::jit::Module module = network.module;
  StatisticsPool pool(network.batch_norms.size());
  double share = 0.0;
  const Tap tap(network, module,
                {.on_layer_input = nullptr,
                 .on_layer_output = nullptr,
                 .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) { pool.Add(index, input, share); }});
  for (std::int64_t begin = 0; begin < images.size(0); begin += kBatch) {
    ThrowIfInterrupted();
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + kBatch, images.size(0)));
    share = static_cast<double>(batch.size(0)) / static_cast<double>(images.size(0));
    module.forward({batch});
  }
  return pool.Take();
}

class Compensation {
 public:
  Compensation(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
               const QuantizerOptions& options, const Posterior* posterior, ProgressSink& progress)
      : network_(network),
        applied_(applied),
        bits_(bits),
        options_(options),
        posterior_(posterior),
        progress_(progress),
        generator_(at::detail::createCPUGenerator(1)) {}

  void Run(const torch::Tensor& images) {
    const bool move = !network_.batch_norms.empty() && options_.batch_norm != "off";
    std::vector<ChannelStatistics> reference, trained;
    TapHandlers handlers;
    handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor& input) { Round(layer, input); };
    if (move) {
      reference = FloatStatistics(network_, images);
      for (const BatchNorm& norm : network_.batch_norms) {
        trained.push_back({Slot(norm.running_mean).clone(), Slot(norm.running_var).clone()});
      }
      handlers.on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
        Write(network_.batch_norms[index], Transferred(trained[index], StatisticsOf(input), reference[index]));
      };
    }
    progress_.Begin("rounding", static_cast<std::int64_t>(network_.layers.size()), "layers");
    {
      const Tap tap(network_, applied_.module, std::move(handlers));
      applied_.module.forward({images});
    }
    progress_.End("");
    for (std::size_t i = 0; i < trained.size(); ++i) Write(network_.batch_norms[i], trained[i]);
  }

 private:
  [[nodiscard]] torch::Tensor Slot(const std::string& path) const { return GetTensor(applied_.module, path); }

  void Write(const BatchNorm& norm, const ChannelStatistics& statistics) {
    Slot(norm.running_mean).copy_(statistics.mean);
    Slot(norm.running_var).copy_(statistics.var);
  }

  void Round(std::size_t index, const torch::Tensor& input) {
    ThrowIfInterrupted();
    const Layer& layer = network_.layers[index];
    progress_.Advance(1);
    if (bits_[index] > 8 || layer.uses != 1 || (layer.kind == "conv2d" && !layer.window)) return;
    const torch::Tensor information =
        options_.range == "posterior" && posterior_ != nullptr ? posterior_->Information(index) : torch::Tensor();
    const WeightRows rows(GetTensor(network_.module, layer.parameter), layer.output_dim, options_, information);
    const QuantizedWeight fit = rows.Fit(bits_[index], applied_.grids[index]);
    const std::int64_t kept = std::max<std::int64_t>(1, input.size(0) * 3 / 4);
    const torch::Tensor moments = Moments(layer, input.slice(0, 0, kept));
    const torch::Tensor held_out = kept < input.size(0) ? Moments(layer, input.slice(0, kept)) : moments;
    torch::Tensor best = rows.Values(fit);
    double least = rows.OutputError(best, held_out);
    for (const double shrinkage : kShrinkages) {
      const torch::Tensor values = rows.CompensatedValues(fit, moments, shrinkage);
      const double error = rows.OutputError(values, held_out);
      if (!(error < least)) continue;
      least = error;
      best = values;
    }
    Slot(layer.parameter).copy_(best);
  }

  // What a correction takes out of the outputs anyway, their mean, is no error: then the covariance counts.
  [[nodiscard]] torch::Tensor Centred(const Layer& layer, torch::Tensor moments, const torch::Tensor& mean) const {
    const bool by_batch_norm = !network_.batch_norms.empty() && options_.batch_norm != "off";
    const bool by_bias = !layer.bias.empty() && options_.output_correction != "off";
    if (!by_batch_norm && !by_bias) return moments;
    return moments.sub_(mean.unsqueeze(2) * mean.unsqueeze(1));
  }

  // E[x x^T] of the inputs of an output channel, [groups, n, n].
  torch::Tensor Moments(const Layer& layer, const torch::Tensor& input) {
    if (layer.kind != "conv2d") {
      const torch::Tensor flat = input.reshape({-1, input.size(-1)});
      return Centred(layer, flat.t().matmul(flat).div_(static_cast<double>(flat.size(0))).unsqueeze(0),
                     flat.mean(0).unsqueeze(0));
    }
    const LayerWindow& window = *layer.window;
    const std::int64_t per_channel = layer.weights() / layer.output_channels();
    const std::int64_t images = input.size(0);
    torch::Tensor sum = torch::zeros({window.groups, per_channel, per_channel});
    torch::Tensor total = torch::zeros({window.groups, per_channel});
    std::int64_t count = 0;
    for (std::int64_t begin = 0, step = 1; begin < images; begin += step) {
      const std::int64_t values = window.groups * per_channel * input.size(2) * input.size(3);
      step = std::clamp<std::int64_t>(kColumns / values, 1, images);
      torch::Tensor columns =
          torch::im2col(input.slice(0, begin, std::min(begin + step, images)), {layer.shape[2], layer.shape[3]},
                        window.dilation, window.padding, window.stride);  // [n, groups * per_channel, positions]
      const std::int64_t positions = columns.size(2);
      const std::int64_t wanted = std::max(kLeastInputs, kInputsPerWeight * per_channel) / images + 1;
      if (positions > 2 * wanted) {
        columns = columns.index_select(2, torch::randint(positions, {wanted}, generator_, torch::kInt64));
      }
      columns = columns.reshape({columns.size(0), window.groups, per_channel, columns.size(2)})
                    .permute({1, 2, 0, 3})
                    .reshape({window.groups, per_channel, -1});
      sum.baddbmm_(columns, columns.transpose(1, 2));
      total.add_(columns.sum(2));
      count += columns.size(2);
    }
    return Centred(layer, sum.div_(static_cast<double>(count)), total.div_(static_cast<double>(count)));
  }

  const Network& network_;
  AppliedPlan& applied_;
  const std::vector<int>& bits_;
  const QuantizerOptions& options_;
  const Posterior* posterior_;
  ProgressSink& progress_;
  at::Generator generator_;
};

}  // namespace

void CompensateRounding(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                        const QuantizerOptions& options, const Posterior* posterior, const torch::Tensor& images,
                        ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  Compensation(network, applied, bits, options, posterior, progress).Run(images);
}

}  // namespace bitplan
