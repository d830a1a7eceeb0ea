#include "sensitivity/activation_rises.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"
#include "bitplan/quantizers/affine_quantizer.h"
#include "models/layer_reads.h"
#include "posterior/batches.h"
#include "posterior/finite.h"

namespace bitplan {
namespace {

constexpr std::int64_t kActivationBatch = 16;    // small: every minibatch is one draw of the estimate
constexpr std::int64_t kActivationRanges = 512;  // images that ranges are fitted to

// What first readers read in one forward pass, with its graph.
class ReadTensors {
 public:
  ReadTensors(const Network& network, const torch::jit::Module& module, const std::vector<std::size_t>& tensors)
      : tensors_(tensors), tap_(network, module, Handlers()) {}

  struct Read {
    std::size_t layer;
    torch::Tensor values;
  };
  [[nodiscard]] std::vector<Read> Take() { return std::exchange(reads_, {}); }

 private:
  TapHandlers Handlers() {
    TapHandlers handlers;
    handlers.on_layer_input = [this](std::size_t layer, const torch::Tensor& input) {
      if (tensors_[layer] != layer || !input.is_floating_point()) return;  // rows of an embedding are looked up
      if (!input.requires_grad() && input.is_leaf()) input.set_requires_grad(true);  // the images themselves
      reads_.push_back({layer, input});
    };
    return handlers;
  }

  const std::vector<std::size_t>& tensors_;
  std::vector<Read> reads_;
  Tap tap_;
};

std::vector<std::vector<AffineQuantizer>> FitWidths(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                                    const std::vector<std::size_t>& tensors, const std::string& range) {
  const torch::NoGradGuard no_grad;
  torch::jit::Module module = inputs.network.module;
  RandomStream draws(inputs.seed, "sensitivity/activation-ranges");
  const torch::Tensor index = DrawSamples(inputs.train, kActivationRanges, draws);
  std::vector<ActivationSample> samples(tensors.size());
  ReadTensors reads(inputs.network, module, tensors);
  for (std::int64_t begin = 0; begin < index.size(0); begin += kActivationBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kActivationBatch, index.size(0)));
    (void)RunForward(module, inputs.normalizer.Apply(inputs.train.images.index_select(0, rows)));
    for (const auto& [layer, values] : reads.Take()) samples[layer].Add(values);
  }
  std::vector<std::vector<AffineQuantizer>> quantizers(tensors.size());
  for (std::size_t l = 0; l < tensors.size(); ++l) {
    for (const int width : widths) quantizers[l].push_back(FitActivation(samples[l], width, range));
  }
  return quantizers;
}

}  // namespace

ActivationRises MeasureActivationRises(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                       const std::string& range, ProgressSink& progress) {
  const Network& network = inputs.network;
  ActivationRises rises{widths, SharedInputs(network), {}};
  rises.loss_rise.assign(network.layers.size(), std::vector<double>(widths.size(), 0.0));
  const auto quantizers = FitWidths(inputs, widths, rises.tensors, range);
  const torch::jit::Module& module = network.module;
  const GradientScope scope(network);
  RandomStream draws(inputs.seed, "sensitivity/activations");
  RandomStream signs(inputs.seed, "sensitivity/activation-signs");
  const torch::Tensor index = DrawSamples(inputs.train, inputs.options.samples, draws);
  const std::int64_t samples = index.size(0);
  if (samples == 0) throw Error(ErrorKind::kData, "sensitivity of activations: there are no training images");
  progress.Begin("sensitivity of activations", samples, "images");
  ReadTensors reads(network, module, rises.tensors);
  for (std::int64_t begin = 0; begin < samples; begin += kActivationBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kActivationBatch, samples));
    const torch::Tensor sketch = FisherSketch(module, inputs.train, rows, inputs.normalizer, signs);
    const auto read = reads.Take();
    std::vector<torch::Tensor> values;
    for (const auto& one : read) values.push_back(one.values);
    const auto gradients = GradientsOf(sketch, values);
    if (!AreFinite(gradients)) {
      throw Error(ErrorKind::kData, "sensitivity of activations: a gradient is not finite on training images");
    }
    std::vector<std::vector<double>> dots(network.layers.size(), std::vector<double>(widths.size(), 0.0));
    for (std::size_t i = 0; i < read.size(); ++i) {
      const auto of_widths = ErrorDots(values[i].detach(), gradients[i], quantizers[read[i].layer]);
      for (std::size_t k = 0; k < widths.size(); ++k) dots[read[i].layer][k] += of_widths[k];
    }
    for (std::size_t l = 0; l < dots.size(); ++l) {
      for (std::size_t k = 0; k < widths.size(); ++k) {
        rises.loss_rise[l][k] += 0.5 * dots[l][k] * dots[l][k] / static_cast<double>(samples);
      }
    }
    progress.Advance(rows.size(0));
  }
  progress.End("");
  return rises;
}

}  // namespace bitplan
