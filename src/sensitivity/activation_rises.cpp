#include "sensitivity/activation_rises.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "models/layer_reads.h"
#include "quantizers/activation_readers.h"
#include "sensitivity/sketch_draws.h"

namespace bitplan {
namespace {

constexpr std::int64_t kActivationRanges = 256;  // images that ranges are fitted to
constexpr std::int64_t kRangeValues = 1 << 16;   // of a tensor, that they are fitted to
constexpr double kErrors = 3.0;                  // standard errors from which on a joint cost counts

}  // namespace

ActivationMeter::ActivationMeter(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                 const std::string& range)
    : inputs_(inputs), widths_(widths), range_(range), tensors_(SharedInputs(inputs.network)) {
  FitWidths();
  squares_.assign(tensors_.size() * widths_.size(), 0.0);
}

TapHandlers ActivationMeter::Handlers() {
  TapHandlers handlers;
  handlers.on_layer_input = [this](std::size_t layer, const torch::Tensor& input) {
    if (!input.is_floating_point() || !inputs_.network.layers[layer].rounds_input()) return;
    const auto same = [&](const Read& read) {
      return read.values.unsafeGetTensorImpl() == input.unsafeGetTensorImpl();
    };
    if (std::any_of(reads_.begin(), reads_.end(), same)) return;  // several layers read it, or one twice
    if (torch::GradMode::is_enabled() && !input.requires_grad() && input.is_leaf()) {
      input.set_requires_grad(true);  // the images themselves, or a tensor of the model
      flagged_.push_back(input);
    }
    reads_.push_back({tensors_[layer], input});
  };
  return handlers;
}

void ActivationMeter::FitWidths() {
  const torch::NoGradGuard no_grad;
  const torch::jit::Module& module = inputs_.network.module;
  RandomStream draws(inputs_.seed, "sensitivity/activation-ranges");
  const torch::Tensor index = DrawSamples(inputs_.train, kActivationRanges, draws);
  std::vector<ActivationSample> samples(tensors_.size(),
                                        ActivationSample{.values = {}, .most_values = kRangeValues, .step = 1});
  at::Generator generator = at::detail::createCPUGenerator(1);
  TapHandlers handlers = Handlers();
  if (range_ == "output") {
    handlers.on_layer_input = [&, before = std::move(handlers.on_layer_input)](std::size_t layer,
                                                                               const torch::Tensor& input) {
      if (inputs_.network.layers[layer].rounds_input()) {
        AddReader(inputs_.network, layer, input, generator, samples[tensors_[layer]]);
      }
      before(layer, input);
    };
  }
  tap_ = std::make_unique<Tap>(inputs_.network, inputs_.network.module, std::move(handlers));
  for (std::int64_t begin = 0; begin < index.size(0); begin += kSketchBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kSketchBatch, index.size(0)));
    (void)RunForward(module, inputs_.normalizer.Apply(inputs_.train.images.index_select(0, rows)));
    for (const auto& [layer, values] : std::exchange(reads_, {})) samples[layer].Add(values);
  }
  tap_.reset();
  quantizers_.resize(tensors_.size());
  for (std::size_t l = 0; l < tensors_.size(); ++l) {
    for (const int width : widths_) quantizers_[l].push_back(FitActivation(samples[l], width, range_));
  }
}

void ActivationMeter::Watch() { tap_ = std::make_unique<Tap>(inputs_.network, inputs_.network.module, Handlers()); }

std::vector<torch::Tensor> ActivationMeter::TakeReads() {
  taken_ = std::exchange(reads_, {});
  std::vector<torch::Tensor> values;
  for (const Read& read : taken_) values.push_back(read.values);
  return values;
}

void ActivationMeter::Add(const std::vector<torch::Tensor>& gradients, std::int64_t images,
                          const std::vector<double>& weight_dots) {
  const std::size_t layers = tensors_.size(), widths = widths_.size(), weight_widths = weight_dots.size() / layers;
  std::vector<double> dots(layers * widths, 0.0);
  for (std::size_t i = 0; i < taken_.size(); ++i) {
    const std::size_t layer = taken_[i].layer;
    const auto of_widths = ErrorDots(taken_[i].values.detach(), gradients[i], quantizers_[layer]);
    for (std::size_t a = 0; a < widths; ++a) dots[layer * widths + a] += of_widths[a];
  }
  taken_.clear();
  for (torch::Tensor& leaf : flagged_) leaf.set_requires_grad(false);
  flagged_.clear();
  if (!std::all_of(dots.begin(), dots.end(), [](double dot) { return std::isfinite(dot); })) {
    throw Error(ErrorKind::kData, "sensitivity of activations: a gradient is not finite on training images");
  }
  images_ += images;
  ++batches_;
  for (std::size_t i = 0; i < dots.size(); ++i) squares_[i] += dots[i] * dots[i];
  products_.resize(layers * weight_widths * widths, 0.0);
  spread_.resize(products_.size(), 0.0);
  for (std::size_t l = 0; l < layers; ++l) {
    for (std::size_t k = 0; k < weight_widths; ++k) {
      for (std::size_t a = 0; a < widths; ++a) {
        const double product = weight_dots[l * weight_widths + k] * dots[tensors_[l] * widths + a];
        products_[(l * weight_widths + k) * widths + a] += product;
        spread_[(l * weight_widths + k) * widths + a] += product * product;
      }
    }
  }
}

ActivationRises ActivationMeter::Finish(const std::vector<int>& weight_widths) {
  tap_.reset();
  const std::size_t layers = tensors_.size(), widths = widths_.size();
  const auto images = static_cast<double>(images_);
  ActivationRises rises{.widths = widths_, .tensors = tensors_, .loss_rise = {}};
  for (std::size_t l = 0; l < layers; ++l) {
    auto& row = rises.loss_rise.emplace_back();
    for (std::size_t a = 0; a < widths; ++a) row.push_back(0.5 * squares_[l * widths + a] / images);
  }
  if (weight_widths.empty()) return rises;
  rises.weight_widths = weight_widths;
  for (std::size_t l = 0; l < layers; ++l) {
    auto& table = rises.together.emplace_back(weight_widths.size(), std::vector<double>(widths, 0.0));
    for (std::size_t k = 0; k < weight_widths.size(); ++k) {
      for (std::size_t a = 0; a < widths; ++a) {
        const double sum = products_[(l * weight_widths.size() + k) * widths + a];
        const double square = spread_[(l * weight_widths.size() + k) * widths + a];
        const auto batches = static_cast<double>(batches_);
        if (batches_ < 2) continue;
        const double spread = std::max(0.0, square - sum * sum / batches) * batches / (batches - 1.0);
        if (std::abs(sum) > kErrors * std::sqrt(spread)) table[k][a] = sum / images;
      }
    }
  }
  return rises;
}

ActivationRises MeasureActivationRises(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                       const std::string& range, ProgressSink& progress) {
  const GradientScope scope(inputs.network);
  ActivationMeter meter(inputs, widths, range);
  SketchDraws draws(inputs);
  if (draws.samples() == 0) {
    throw Error(ErrorKind::kUsage,
                "sensitivity of activations: sensitivity.samples is 0, or there are no training "
                "images");
  }
  progress.Begin("sensitivity of activations", draws.samples(), "images");
  meter.Watch();
  for (std::int64_t begin = 0; begin < draws.samples(); begin += kSketchBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = draws.Rows(begin);
    const torch::Tensor sketch = draws.Sketch(rows);
    meter.Add(GradientsOf(sketch, meter.TakeReads()), rows.size(0), {});
    progress.Advance(rows.size(0));
  }
  progress.End("");
  return meter.Finish({});
}

}  // namespace bitplan
