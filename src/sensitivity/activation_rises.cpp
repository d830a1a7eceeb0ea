#include "sensitivity/activation_rises.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "sensitivity/sketch_draws.h"

namespace bitplan {
namespace {

constexpr double kErrors = 3.0;  // standard errors from which on a joint cost counts

}  // namespace

ActivationMeter::ActivationMeter(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                 const std::string& range)
    : inputs_(inputs), levels_(FitActivationLevels(inputs, widths, range)) {
  squares_.assign(levels_.tensors.size() * widths.size(), 0.0);
}

void ActivationMeter::Watch() { watch_ = std::make_unique<ReadWatch>(inputs_.network, levels_.tensors); }

std::vector<torch::Tensor> ActivationMeter::TakeReads() {
  taken_ = watch_->Take();
  std::vector<torch::Tensor> values;
  for (const ReadWatch::Read& read : taken_) values.push_back(read.values);
  return values;
}

void ActivationMeter::Add(const std::vector<torch::Tensor>& gradients, std::int64_t images,
                          const std::vector<double>& weight_dots) {
  const std::vector<std::size_t>& tensors = levels_.tensors;
  const std::size_t layers = tensors.size(), widths = levels_.widths.size();
  const std::size_t weight_widths = weight_dots.size() / layers;
  std::vector<double> dots(layers * widths, 0.0);
  for (std::size_t i = 0; i < taken_.size(); ++i) {
    const std::size_t layer = taken_[i].tensor;
    const auto of_widths = ErrorDots(taken_[i].values.detach(), gradients[i], levels_.quantizers[layer]);
    for (std::size_t a = 0; a < widths; ++a) dots[layer * widths + a] += of_widths[a];
  }
  taken_.clear();
  watch_->Forget();
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
        const double product = weight_dots[l * weight_widths + k] * dots[tensors[l] * widths + a];
        products_[(l * weight_widths + k) * widths + a] += product;
        spread_[(l * weight_widths + k) * widths + a] += product * product;
      }
    }
  }
}

ActivationRises ActivationMeter::Finish(const std::vector<int>& weight_widths) {
  watch_.reset();
  const std::size_t layers = levels_.tensors.size(), widths = levels_.widths.size();
  const auto images = static_cast<double>(images_);
  ActivationRises rises{.widths = levels_.widths, .tensors = levels_.tensors, .loss_rise = {}};
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
