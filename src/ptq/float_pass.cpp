#include "ptq/float_pass.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "models/input_products.h"

namespace bitplan {
namespace {

// Positions drawn for the moments: at least so many for each weight of an output channel, and more where products of n
// inputs are cheap.
constexpr std::int64_t kInputsPerWeight = 8;
constexpr std::int64_t kMostInputs = std::int64_t{1} << 17;
constexpr std::int64_t kProducts = 30'000'000'000;
constexpr std::int64_t kLeastHeldOut = 8192;
constexpr std::int64_t kComparedPositions = 64;
constexpr double kSameOutputs = 1e-3;  // of the largest output: float32 sums in another order
constexpr std::int64_t kSlopeImages = 16;
constexpr double kLeastSlope = 1e-3;  // of a batch norm's channels, against the largest

// What a batch norm multiplies its channels by, float32 [channels], from what went in and came out, [n, C, ...].
// Infinite for a channel that it all but mutes.
torch::Tensor Slopes(const torch::Tensor& input, const torch::Tensor& output) {
  const auto few = [](const torch::Tensor& values) {
    const torch::Tensor rows = values.slice(0, 0, kSlopeImages).transpose(0, 1).flatten(1);
    return (rows - rows.mean(1, /*keepdim=*/true)).to(torch::kFloat64);
  };
  const torch::Tensor in = few(input);
  const torch::Tensor slopes = (in * few(output)).sum(1) / in.square().sum(1);
  const torch::Tensor sound = slopes.isfinite() & slopes.abs().ge(kLeastSlope * slopes.abs().nan_to_num(0.0).max());
  return torch::where(sound, slopes, torch::full_like(slopes, std::numeric_limits<double>::infinity()))
      .to(torch::kFloat32);
}

}  // namespace

std::int64_t WantedPositions(const Layer& layer) {
  const std::int64_t n = layer.weights() / layer.output_channels();
  return std::max(kInputsPerWeight * n, std::min(kMostInputs, kProducts / (n * n)));
}

torch::Tensor ByGroup(const Layer& layer, const torch::Tensor& outputs) {
  return outputs.reshape({outputs.size(0), layer.window ? layer.window->groups : 1, -1}).transpose(0, 1);
}

torch::Tensor FloatOutputs(const Network& network, const Layer& layer, const torch::Tensor& inputs) {
  const torch::Tensor weight = GetTensor(network.module, layer.parameter).detach().movedim(layer.output_dim, 0);
  return inputs.matmul(weight.reshape({inputs.size(0), -1, inputs.size(2)}).transpose(1, 2));
}

FloatSide::FloatSide(const Network& network, torch::Tensor images, bool several)
    : pass_(std::make_unique<Pass>(network, std::move(images), several)) {}
FloatSide::FloatSide(FloatSide&&) noexcept = default;
FloatSide& FloatSide::operator=(FloatSide&&) noexcept = default;
FloatSide::~FloatSide() = default;

const torch::Tensor& FloatSide::images() const { return pass_->images(); }

FloatSide::Pass::Pass(const Network& network, torch::Tensor images, bool several)
    : network_(network),
      images_(std::move(images)),
      several_(several),
      kept_(std::max<std::int64_t>(1, images_.size(0) * 3 / 4)),
      generator_(at::detail::createCPUGenerator(1)) {}

void FloatSide::Pass::Prepare(const std::vector<bool>& sampled, const std::vector<bool>& fitted) {
  const auto none = [](const std::vector<bool>& layers) {
    return std::none_of(layers.begin(), layers.end(), [](bool wanted) { return wanted; });
  };
  if (!fitted.empty() && none(fitted)) {
    outputs_ = OutputReference();
    fitted_ = fitted;
  }
  const bool lacks_samples = !none(sampled) && sampled != sampled_, lacks_outputs = !none(fitted) && fitted != fitted_;
  if (ran_ && !lacks_samples && !lacks_outputs) return;
  Run(lacks_samples ? sampled : std::vector<bool>(sampled.size(), false), fitted);
  if (lacks_samples) sampled_ = sampled;
  fitted_ = fitted;
  ran_ = true;
}

std::vector<LayerSample> FloatSide::Pass::TakeSamples(std::size_t layer) {
  if (several_) return samples_[layer];
  sampled_.clear();  // they are gone
  return std::move(samples_[layer]);
}

// All images at once, as the quantized network will run: rows correspond one to one.
void FloatSide::Pass::Run(const std::vector<bool>& sampled, const std::vector<bool>& fitted) {
  const torch::NoGradGuard no_grad;
  if (!image_rows_) {
    image_rows_.emplace(network_, images_);
    joins_ = FindJoins(network_);
  }
  torch::jit::Module module = network_.module;
  const bool samples = std::find(sampled.begin(), sampled.end(), true) != sampled.end();
  std::vector<torch::Tensor> others(network_.layers.size());
  std::vector<std::optional<Join>> joins(network_.layers.size());
  if (samples) {
    samples_.assign(network_.layers.size(), {});
    slopes_.assign(network_.layers.size(), {});
    generator_ = at::detail::createCPUGenerator(1);
    for (std::size_t l = 0; l < joins.size(); ++l) {
      if (sampled[l]) joins[l] = joins_[l];
    }
  }
  batch_norms_.assign(network_.batch_norms.size(), {});
  outputs_ = fitted.empty() ? OutputReference() : OutputReference(network_, fitted, images_);
  const auto is_sampled = [&](std::size_t index) { return samples && sampled[index]; };
  TapHandlers handlers;
  handlers.on_layer_input = [&](std::size_t index, const torch::Tensor& input) {
    if (!is_sampled(index)) return;
    samples_[index] = {Drawn(index, input, others[index], 0, kept_)};
    if (kept_ < images_.size(0)) {
      samples_[index].push_back(Drawn(index, input, others[index], kept_, images_.size(0)));
    }
    others[index].reset();
  };
  handlers.on_layer_output = [&](std::size_t index, const torch::Tensor& output) {
    outputs_.Keep(index, output);
    if (!is_sampled(index) || samples_[index].empty()) return;
    KeepOutputs(index, output, 0, kept_, samples_[index].front());
    if (samples_[index].size() > 1) KeepOutputs(index, output, kept_, images_.size(0), samples_[index].back());
  };
  handlers.on_batch_norm_input = [&](std::size_t norm, const torch::Tensor& input) {
    if (input.numel() > 0) batch_norms_[norm] = StatisticsOf(input);
  };
  handlers.on_batch_norm_output = [&](std::size_t norm, const torch::Tensor& input, const torch::Tensor& output,
                                      double) {
    for (std::size_t l = 0; l < joins.size(); ++l) {
      if (joins[l] && joins[l]->batch_norm == norm && input.numel() > 0) slopes_[l] = Slopes(input, output);
    }
  };
  WatchJoins(joins, handlers, [&](std::size_t layer, const torch::Tensor& other) { others[layer] = other; });
  const Tap tap(network_, module, std::move(handlers));
  (void)RunForward(module, images_);
}

LayerSample FloatSide::Pass::Drawn(std::size_t index, const torch::Tensor& input, const torch::Tensor& other,
                                   std::int64_t begin, std::int64_t end) {
  ThrowIfInterrupted();
  const Layer& layer = network_.layers[index];
  const torch::Tensor rows = image_rows_->Of(index, input, images_.size(0), begin, end);
  LayerSample sample;
  sample.sizes = rows.sizes().vec();
  if (rows.numel() == 0) return sample;
  std::int64_t count = WantedPositions(layer);
  if (begin > 0) count = std::max(kLeastHeldOut, count / 3);  // only errors are measured on them
  sample.positions = DrawPositions(InputPositions(layer, rows), count, generator_);
  sample.other = OtherTerm(index, other, rows, begin, end, sample.positions);
  sample.input = rows;
  return sample;
}

// Of a sample either its input or, where they take less, the outputs. `output`: what the layer put out.
void FloatSide::Pass::KeepOutputs(std::size_t index, const torch::Tensor& output, std::int64_t begin, std::int64_t end,
                                  LayerSample& sample) const {
  if (!sample.input.defined()) return;
  const Layer& layer = network_.layers[index];
  if (sample.input.numel() <= sample.positions.size(0) * layer.output_channels()) {
    sample.input = sample.input.clone();
    return;
  }
  sample.outputs = OwnOutputs(index, output, begin, end, sample);
  if (!sample.outputs.defined()) {
    std::vector<torch::Tensor> outputs;
    for (const torch::Tensor& part : GatherParts(layer, sample.positions)) {
      outputs.push_back(FloatOutputs(network_, layer, GatherInputs(layer, sample.input, part)));
    }
    sample.outputs = torch::cat(outputs, 1);
  }
  sample.input.reset();
}

// The products of weights and inputs as the layer itself has computed them, without the bias where it added that.
// Undefined where some of them, multiplied here, say that its operation gives something else.
torch::Tensor FloatSide::Pass::OwnOutputs(std::size_t index, const torch::Tensor& output, std::int64_t begin,
                                          std::int64_t end, const LayerSample& sample) const {
  const Layer& layer = network_.layers[index];
  if (!image_rows_->Fits(index, output, images_.size(0))) return {};
  const torch::Tensor rows = image_rows_->Of(index, output, images_.size(0), begin, end);
  if (rows.numel() != InputPositions(layer, sample.input) * layer.output_channels()) return {};
  const std::int64_t step = std::max<std::int64_t>(1, sample.positions.size(0) / kComparedPositions);
  const auto some = [&](const torch::Tensor& of_all) { return of_all.slice(0, 0, of_all.size(0), step); };
  const torch::Tensor right = FloatOutputs(network_, layer, GatherInputs(layer, sample.input, some(sample.positions)));
  torch::Tensor outputs = GatherOutputs(layer, rows, sample.positions);
  const auto error = [&](const torch::Tensor& values) {
    return (ByGroup(layer, values) - right).abs().max().item<double>();
  };
  double least = error(some(outputs));
  if (!layer.bias.empty()) {
    const torch::Tensor bias = GetTensor(network_.module, layer.bias).detach();
    const double without = error(some(outputs) - bias);
    if (without < least) {
      least = without;
      outputs = outputs - bias;
    }
  }
  if (!(least <= kSameOutputs * right.abs().max().item<double>())) return {};
  return ByGroup(layer, outputs).contiguous();
}

torch::Tensor FloatSide::Pass::OtherTerm(std::size_t index, const torch::Tensor& other, const torch::Tensor& rows,
                                         std::int64_t begin, std::int64_t end, const torch::Tensor& positions) const {
  const Layer& layer = network_.layers[index];
  if (!other.defined() || !image_rows_->Fits(index, other, images_.size(0))) return {};
  const torch::Tensor of_images = image_rows_->Of(index, other, images_.size(0), begin, end);
  const std::int64_t per_channel = of_images.numel() / std::max<std::int64_t>(1, layer.output_channels());
  return per_channel == InputPositions(layer, rows) ? GatherOutputs(layer, of_images, positions) : torch::Tensor();
}

}  // namespace bitplan
