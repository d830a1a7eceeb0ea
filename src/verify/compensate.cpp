#include "bitplan/verify/compensate.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/image_rows.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "bitplan/quantizers/quantizer.h"
#include "bitplan/verify/correction.h"
#include "verify/statistics_pool.h"

namespace bitplan {
namespace {

constexpr std::int64_t kMomentBatch = 256;
constexpr std::int64_t kInputsPerWeight = 8;  // positions drawn for the moments, per weight of an output channel
constexpr std::int64_t kLeastInputs = 8192;
constexpr std::int64_t kGathered = std::int64_t{1} << 24;  // values gathered at once

std::vector<ChannelStatistics> FloatStatistics(const Network& network, const torch::Tensor& images) {
  torch::jit::Module module = network.module;
  StatisticsPool pool(network.batch_norms.size());
  double share = 0.0;
  const Tap tap(
      network, module,
      {.on_layer_input = nullptr,
       .on_layer_output = nullptr,
       .on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) { pool.Add(index, input, share); }});
  for (std::int64_t begin = 0; begin < images.size(0); begin += kMomentBatch) {
    ThrowIfInterrupted();
    const torch::Tensor batch = images.slice(0, begin, std::min(begin + kMomentBatch, images.size(0)));
    share = static_cast<double>(batch.size(0)) / static_cast<double>(images.size(0));
    (void)RunForward(module, batch);
  }
  return pool.Take();
}

class Compensation {
 public:
  Compensation(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
               const QuantizerOptions& options, const torch::Tensor& images, ProgressSink& progress)
      : network_(network),
        applied_(applied),
        bits_(bits),
        options_(options),
        centred_(CentredLayers(network, options)),
        images_(images),
        image_rows_(network, images),
        progress_(progress),
        generator_(at::detail::createCPUGenerator(1)) {}

  void Run() {
    const bool move = !network_.batch_norms.empty() && CentringOf(options_).batch_norm;
    std::vector<ChannelStatistics> reference, trained;
    TapHandlers handlers;
    handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor& input) { Round(layer, input); };
    if (move) {
      reference = FloatStatistics(network_, images_);
      for (const BatchNorm& norm : network_.batch_norms) {
        trained.push_back({Slot(norm.running_mean).clone(), Slot(norm.running_var).clone()});
      }
      handlers.on_batch_norm_input = [&](std::size_t index, const torch::Tensor& input) {
        if (input.numel() == 0 || !reference[index].mean.defined()) return;  // no image reaches it
        Write(network_.batch_norms[index], Transferred(trained[index], StatisticsOf(input), reference[index]));
      };
    }
    progress_.Begin("rounding", static_cast<std::int64_t>(network_.layers.size()), "layers");
    {
      const Tap tap(network_, applied_.module, std::move(handlers));
      (void)RunForward(applied_.module, images_);
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
    if (bits_[index] > 8 || !HasKnownInputs(layer)) return;
    QuantizerOptions plain = options_;
    plain.range = "mse";  // the scales are there already
    const WeightRows rows(GetTensor(network_.module, layer.parameter), layer.output_dim, plain);
    const QuantizedWeight& fit = applied_.fits[index];
    const std::int64_t images = images_.size(0), kept = std::max<std::int64_t>(1, images * 3 / 4);
    const torch::Tensor moments = Moments(layer, image_rows_.Of(index, input, images, 0, kept), centred_[index]);
    if (!moments.defined()) return;
    torch::Tensor held_out;
    if (kept < images) held_out = Moments(layer, image_rows_.Of(index, input, images, kept, images), centred_[index]);
    if (!held_out.defined()) held_out = moments;
    Slot(layer.parameter).copy_(rows.CompensatedValues(fit, moments, held_out));
  }

  // E[x x^T] of the inputs of an output channel, [groups, n, n]; of a mean that a correction takes out of the outputs
  // anyway only what is left, the covariance. Undefined when no input reaches the layer.
  torch::Tensor Moments(const Layer& layer, const torch::Tensor& input, bool centred) {
    const std::int64_t per_channel = layer.weights() / layer.output_channels();
    const torch::Tensor positions =
        DrawPositions(InputPositions(layer, input), std::max(kLeastInputs, kInputsPerWeight * per_channel), generator_);
    if (positions.numel() == 0) return {};
    torch::Tensor sum, total;
    for (const torch::Tensor& part : positions.split(std::max<std::int64_t>(1, kGathered / per_channel))) {
      const torch::Tensor inputs = GatherInputs(layer, input, part);
      const torch::Tensor products = inputs.transpose(1, 2).matmul(inputs);
      sum = sum.defined() ? sum.add_(products) : products;
      total = total.defined() ? total.add_(inputs.sum(1)) : inputs.sum(1);
    }
    const auto count = static_cast<double>(positions.size(0));
    sum.div_(count);
    if (!centred) return sum;
    const torch::Tensor mean = total.div_(count);
    return sum.sub_(mean.unsqueeze(2) * mean.unsqueeze(1));
  }

  const Network& network_;
  AppliedPlan& applied_;
  const std::vector<int>& bits_;
  const QuantizerOptions& options_;
  std::vector<bool> centred_;
  const torch::Tensor& images_;
  ImageRows image_rows_;
  ProgressSink& progress_;
  at::Generator generator_;
};

}  // namespace

void CompensateRounding(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                        const QuantizerOptions& options, const torch::Tensor& images, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  if (images.size(0) == 0) return;
  Compensation(network, applied, bits, options, images, progress).Run();
}

}  // namespace bitplan
