#include "bitplan/ptq/compensate.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/image_rows.h"
#include "bitplan/models/joins.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "bitplan/ptq/correction.h"
#include "bitplan/quantizers/quantizer.h"
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

// Where a layer's moments are taken, and what the float network has there.
struct Sample {
  torch::Tensor positions;  // int64 [positions], into the rows of the images
  torch::Tensor input;      // the rows of these images that the float layer sees; undefined once outputs are there
  torch::Tensor outputs;    // of the float layer without its bias, [groups, positions, channels per group]
  torch::Tensor other;      // what the float network adds to these outputs, [positions, channels], or undefined
  std::vector<std::int64_t> sizes;  // of the rows
};

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

class Compensation {
 public:
  Compensation(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
               const QuantizerOptions& options, const torch::Tensor& images, ProgressSink& progress)
      : network_(network),
        applied_(applied),
        bits_(bits),
        options_(options),
        centred_(CentredLayers(network, options)),
        feeds_(FeedsBatchNorm(network)),
        images_(images),
        kept_(std::max<std::int64_t>(1, images.size(0) * 3 / 4)),
        image_rows_(network, images),
        progress_(progress),
        joins_(FindJoins(network)),
        others_(network.layers.size()),
        slopes_(network.layers.size()),
        samples_(network.layers.size()),
        generator_(at::detail::createCPUGenerator(1)) {}

  void Run() {
    for (std::size_t l = 0; l < joins_.size(); ++l) {
      if (!IsRounded(l)) joins_[l].reset();
    }
    std::optional<BatchNormTransfer> transfer;
    if (!network_.batch_norms.empty() && CentringOf(options_).batch_norm) transfer.emplace(network_, applied_.module);
    RunFloat(transfer ? transfer->FloatHandler() : nullptr);
    TapHandlers handlers;
    handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor& input) { Round(layer, input); };
    if (transfer) handlers.on_batch_norm_input = transfer->Handler();
    WatchJoins(joins_, handlers, [&](std::size_t layer, const torch::Tensor& other) { others_[layer] = other; });
    progress_.Begin("rounding", static_cast<std::int64_t>(network_.layers.size()), "layers");
    {
      const Tap tap(network_, applied_.module, std::move(handlers));
      (void)RunForward(applied_.module, images_);
    }
    progress_.End("");
    if (transfer) transfer->Restore();
  }

 private:
  [[nodiscard]] torch::Tensor Slot(const std::string& path) const { return GetTensor(applied_.module, path); }

  [[nodiscard]] bool IsRounded(std::size_t index) const {
    return bits_[index] <= 8 && HasKnownInputs(network_.layers[index]);
  }

  // The float network on all images at once, as the quantized one will run: rows correspond one to one.
  void RunFloat(std::function<void(std::size_t index, const torch::Tensor& input)> on_batch_norm) {
    torch::jit::Module module = network_.module;
    TapHandlers handlers;
    handlers.on_layer_input = [&](std::size_t index, const torch::Tensor& input) {
      if (!IsRounded(index)) return;
      samples_[index] = {Drawn(index, input, 0, kept_)};
      if (kept_ < images_.size(0)) samples_[index].push_back(Drawn(index, input, kept_, images_.size(0)));
      others_[index].reset();
    };
    handlers.on_layer_output = [&](std::size_t index, const torch::Tensor& output) {
      if (samples_[index].empty()) return;
      KeepOutputs(index, output, 0, kept_, samples_[index].front());
      if (samples_[index].size() > 1) KeepOutputs(index, output, kept_, images_.size(0), samples_[index].back());
    };
    handlers.on_batch_norm_input = std::move(on_batch_norm);
    handlers.on_batch_norm_output = [&](std::size_t norm, const torch::Tensor& input, const torch::Tensor& output,
                                        double) {
      for (std::size_t l = 0; l < joins_.size(); ++l) {
        if (joins_[l] && joins_[l]->batch_norm == norm && input.numel() > 0) slopes_[l] = Slopes(input, output);
      }
    };
    WatchJoins(joins_, handlers, [&](std::size_t layer, const torch::Tensor& other) { others_[layer] = other; });
    const Tap tap(network_, module, std::move(handlers));
    (void)RunForward(module, images_);
  }

  Sample Drawn(std::size_t index, const torch::Tensor& input, std::int64_t begin, std::int64_t end) {
    ThrowIfInterrupted();
    const Layer& layer = network_.layers[index];
    const torch::Tensor rows = image_rows_.Of(index, input, images_.size(0), begin, end);
    Sample sample;
    sample.sizes = rows.sizes().vec();
    if (rows.numel() == 0) return sample;
    std::int64_t count = Wanted(WeightsPerChannel(layer));
    if (begin > 0) count = std::max(kLeastHeldOut, count / 3);  // only errors are measured on them
    sample.positions = DrawPositions(InputPositions(layer, rows), count, generator_);
    sample.other = OtherTerm(index, rows, begin, end, sample.positions);
    sample.input = rows;
    return sample;
  }

  // Of a sample either its input or, where they take less, the outputs. `output`: what the layer put out.
  void KeepOutputs(std::size_t index, const torch::Tensor& output, std::int64_t begin, std::int64_t end,
                   Sample& sample) const {
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
        outputs.push_back(FloatOutputs(layer, GatherInputs(layer, sample.input, part)));
      }
      sample.outputs = torch::cat(outputs, 1);
    }
    sample.input.reset();
  }

  // The products of weights and inputs as the layer itself has computed them, without the bias where it added that.
  // Undefined where some of them, multiplied here, say that its operation gives something else.
  [[nodiscard]] torch::Tensor OwnOutputs(std::size_t index, const torch::Tensor& output, std::int64_t begin,
                                         std::int64_t end, const Sample& sample) const {
    const Layer& layer = network_.layers[index];
    if (!image_rows_.Fits(index, output, images_.size(0))) return {};
    const torch::Tensor rows = image_rows_.Of(index, output, images_.size(0), begin, end);
    if (rows.numel() != InputPositions(layer, sample.input) * layer.output_channels()) return {};
    const std::int64_t step = std::max<std::int64_t>(1, sample.positions.size(0) / kComparedPositions);
    const auto some = [&](const torch::Tensor& of_all) { return of_all.slice(0, 0, of_all.size(0), step); };
    const torch::Tensor right = FloatOutputs(layer, GatherInputs(layer, sample.input, some(sample.positions)));
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

  // [positions, channels] as [groups, positions, channels per group].
  static torch::Tensor ByGroup(const Layer& layer, const torch::Tensor& outputs) {
    return outputs.reshape({outputs.size(0), layer.window ? layer.window->groups : 1, -1}).transpose(0, 1);
  }

  // What is added to the layer's outputs at these positions of the images begin .. end, [positions, channels];
  // undefined where nothing is, or cannot be known. `rows`: the layer's input on these images.
  [[nodiscard]] torch::Tensor OtherTerm(std::size_t index, const torch::Tensor& rows, std::int64_t begin,
                                        std::int64_t end, const torch::Tensor& positions) const {
    const Layer& layer = network_.layers[index];
    if (!others_[index].defined() || !image_rows_.Fits(index, others_[index], images_.size(0))) return {};
    const torch::Tensor other = image_rows_.Of(index, others_[index], images_.size(0), begin, end);
    const std::int64_t per_channel = other.numel() / std::max<std::int64_t>(1, layer.output_channels());
    return per_channel == InputPositions(layer, rows) ? GatherOutputs(layer, other, positions) : torch::Tensor();
  }

  [[nodiscard]] double HeldShare() const {
    return static_cast<double>(images_.size(0) - kept_) / static_cast<double>(images_.size(0));
  }

  static std::int64_t WeightsPerChannel(const Layer& layer) { return layer.weights() / layer.output_channels(); }

  // Positions for moments of n inputs.
  static std::int64_t Wanted(std::int64_t n) {
    return std::max(kInputsPerWeight * n, std::min(kMostInputs, kProducts / (n * n)));
  }

  // `inputs`: [groups, positions, n].
  [[nodiscard]] torch::Tensor FloatOutputs(const Layer& layer, const torch::Tensor& inputs) const {
    const torch::Tensor weight = GetTensor(network_.module, layer.parameter).detach().movedim(layer.output_dim, 0);
    return inputs.matmul(weight.reshape({inputs.size(0), -1, inputs.size(2)}).transpose(1, 2));
  }

  void Round(std::size_t index, const torch::Tensor& input) {
    ThrowIfInterrupted();
    const Layer& layer = network_.layers[index];
    progress_.Advance(1);
    if (!IsRounded(index) || samples_[index].empty()) return;
    QuantizerOptions plain = options_;
    plain.range = "mse";  // the scales are there already
    const WeightRows rows(GetTensor(network_.module, layer.parameter), layer.output_dim, plain);
    const QuantizedWeight& fit = applied_.fits[index];
    const std::int64_t images = images_.size(0);
    // Rows of a choice among images, or more or fewer than the float network had, have no partners there: then the
    // layer's own outputs are wanted.
    const bool pairs = image_rows_.Fits(index, input, images);
    const auto kept = Moments(index, input, 0, kept_, samples_[index].front(), pairs);
    std::optional<Taken> held_out;
    if (kept && kept_ < images) held_out = Moments(index, input, kept_, images, samples_[index].back(), pairs);
    samples_[index].clear();
    others_[index].reset();
    if (!kept) return;
    applied_.Put(network_, index,
                 held_out ? rows.Compensated(fit, kept->moments, held_out->moments, HeldShare())
                          : rows.Compensated(fit, kept->moments, kept->moments));
    // A mean that rounding did not look at is put right at once, whatever correction is chosen later.
    if (centred_[index] && !feeds_[index]) {
      const torch::Tensor by_group = Slot(layer.parameter)
                                         .movedim(layer.output_dim, 0)
                                         .reshape({kept->input_mean.size(0), -1, kept->input_mean.size(1)});
      const torch::Tensor now = by_group.matmul(kept->input_mean.unsqueeze(2)).flatten();
      Slot(layer.bias).add_((kept->output_mean.flatten() - now).reshape_as(Slot(layer.bias)));
    }
  }

  // What the outputs of a layer should be changed by, so that the sum that they go into is that of the float network:
  // the lack of the other term, in front of the batch norm between. float32 [groups, positions, channels per group].
  [[nodiscard]] torch::Tensor LackOfOther(std::size_t index, const torch::Tensor& rows, std::int64_t begin,
                                          std::int64_t end, const Sample& sample) const {
    if (!sample.other.defined() || (joins_[index]->batch_norm && !slopes_[index].defined())) return {};
    const torch::Tensor now = OtherTerm(index, rows, begin, end, sample.positions);
    if (!now.defined()) return {};
    torch::Tensor lack = sample.other - now;
    if (joins_[index]->batch_norm) lack = lack.div_(slopes_[index]);
    return ByGroup(network_.layers[index], lack);
  }

  // Of the inputs that the quantized layer really gets from the images begin .. end, and the outputs that it should
  // have: those of the float layer and what is wanting in a sum that they go into. Where a correction takes the mean
  // out of the outputs anyway, only of what is left. Nothing when no input reaches the layer.
  struct Taken {
    OutputMoments moments;
    torch::Tensor input_mean, output_mean;  // of a centred layer, [groups, n] and [groups, channels per group]
  };
  [[nodiscard]] std::optional<Taken> Moments(std::size_t index, const torch::Tensor& input, std::int64_t first,
                                             std::int64_t last, const Sample& sample, bool pairs) {
    const Layer& layer = network_.layers[index];
    const torch::Tensor rows = image_rows_.Of(index, input, images_.size(0), first, last);
    if (rows.numel() == 0) return std::nullopt;
    pairs = pairs && sample.positions.defined() && rows.sizes() == c10::IntArrayRef(sample.sizes);
    const torch::Tensor positions =
        pairs ? sample.positions
              : DrawPositions(InputPositions(layer, rows), Wanted(WeightsPerChannel(layer)), generator_);
    const torch::Tensor lack = pairs ? LackOfOther(index, rows, first, last, sample) : torch::Tensor();
    torch::Tensor squares, products, input_sum, output_sum, input_pilot, output_pilot;
    const auto add = [](torch::Tensor& sum, const torch::Tensor& part) { sum = sum.defined() ? sum.add_(part) : part; };
    double power = 0.0;
    std::int64_t begin = 0;
    for (const torch::Tensor& part : GatherParts(layer, positions)) {
      torch::Tensor inputs = GatherInputs(layer, rows, part);
      torch::Tensor outputs = !pairs                   ? FloatOutputs(layer, inputs)
                              : sample.input.defined() ? FloatOutputs(layer, GatherInputs(layer, sample.input, part))
                                                       : sample.outputs.slice(1, begin, begin + part.size(0));
      if (lack.defined()) outputs = outputs + lack.slice(1, begin, begin + part.size(0));
      begin += part.size(0);
      if (centred_[index]) {  // around a mean of few, so that squares of a large mean do not swallow what varies
        if (!input_pilot.defined()) {
          input_pilot = inputs.mean(1, /*keepdim=*/true);
          output_pilot = outputs.mean(1, /*keepdim=*/true);
        }
        inputs.sub_(input_pilot);
        outputs = outputs - output_pilot;
      }
      AddUpperProducts(squares, inputs);
      AddProducts(products, outputs, inputs);
      add(input_sum, inputs.sum(1));
      add(output_sum, outputs.sum(1));
      power += outputs.square().sum(torch::kFloat64).item<double>();
    }
    MirrorUpper(squares);
    const auto count = static_cast<double>(positions.size(0));
    Taken taken{{squares.div_(count), products.div_(count), power / count}, {}, {}};
    OutputMoments& moments = taken.moments;
    if (centred_[index]) {
      const torch::Tensor input_mean = input_sum.div_(count), output_mean = output_sum.div_(count);
      moments.inputs.sub_(input_mean.unsqueeze(2) * input_mean.unsqueeze(1));
      moments.targets.sub_(output_mean.unsqueeze(2) * input_mean.unsqueeze(1));
      moments.power -= output_mean.square().sum(torch::kFloat64).item<double>();
      taken.input_mean = input_mean + input_pilot.squeeze(1);
      taken.output_mean = output_mean + output_pilot.squeeze(1);
    }
    moments.targets = moments.targets.flatten(0, 1);
    return taken;
  }

  const Network& network_;
  AppliedPlan& applied_;
  const std::vector<int>& bits_;
  const QuantizerOptions& options_;
  std::vector<bool> centred_, feeds_;  // of every layer: its mean is corrected; by a batch norm behind it
  const torch::Tensor& images_;
  std::int64_t kept_;  // images that the codes are fitted to; the others choose among ways of rounding
  ImageRows image_rows_;
  ProgressSink& progress_;
  std::vector<std::optional<Join>> joins_;
  std::vector<torch::Tensor> others_;         // of every layer: the other term of its sum, while it is needed
  std::vector<torch::Tensor> slopes_;         // of the batch norm between a layer and its sum
  std::vector<std::vector<Sample>> samples_;  // of every layer until it is rounded
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
