#include "bitplan/ptq/compensate.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <memory>
#include <optional>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/batch_norm.h"
#include "bitplan/models/joins.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/tap.h"
#include "bitplan/quantizers/quantizer.h"
#include "models/input_products.h"
#include "ptq/float_pass.h"
#include "ptq/output_fit.h"
#include "ptq/transferred_pass.h"

namespace bitplan {
namespace {

class Compensation {
 public:
  Compensation(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
               const QuantizerOptions& options, FloatSide::Pass& reference, ProgressSink& progress)
      : network_(network),
        applied_(applied),
        bits_(bits),
        options_(options),
        centred_(CentredLayers(network, options)),
        feeds_(FeedsBatchNorm(network)),
        reference_(reference),
        images_(reference.images()),
        kept_(reference.kept()),
        progress_(progress),
        others_(network.layers.size()) {}

  void Run() {
    std::vector<bool> rounded;
    for (std::size_t l = 0; l < network_.layers.size(); ++l) rounded.push_back(IsRounded(l));
    const bool fits = options_.output_correction != "off";
    reference_.Prepare(rounded, fits ? ChangedLayers(network_, applied_.module) : std::vector<bool>());
    generator_ = reference_.generator();
    joins_ = reference_.joins();
    for (std::size_t l = 0; l < joins_.size(); ++l) {
      if (!rounded[l]) joins_[l].reset();
    }
    std::optional<BatchNormTransfer> transfer;
    TapHandlers handlers;
    handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor& input) { Round(layer, input); };
    if (!network_.batch_norms.empty() && CentringOf(options_).batch_norm) {
      transfer.emplace(network_, applied_.module);
      transfer->Follow(reference_.batch_norms());
      handlers.on_batch_norm_input = [this, handle = transfer->Handler()](std::size_t norm,
                                                                          const torch::Tensor& input) {
        outputs_.reset();  // with the layer in front of it fitted, it would see something else
        handle(norm, input);
      };
      if (const auto& fitted = reference_.outputs().layers(); fits && fitted.size() == 1) {
        handlers.on_layer_output = [&](std::size_t layer, const torch::Tensor& output) {
          if (layer == fitted.front()) KeepOutputs(layer, output);
        };
      }
    }
    WatchJoins(joins_, handlers, [&](std::size_t layer, const torch::Tensor& other) { others_[layer] = other; });
    progress_.Begin("rounding", static_cast<std::int64_t>(network_.layers.size()), "layers");
    {
      const Tap tap(network_, applied_.module, std::move(handlers));
      (void)RunForward(applied_.module, images_);
    }
    progress_.End("");
    if (!transfer) return;
    std::vector<ChannelStatistics> batch_norms;
    for (const BatchNorm& norm : network_.batch_norms) {
      batch_norms.push_back({Slot(norm.running_mean).clone(), Slot(norm.running_var).clone()});
    }
    transfer->Restore();
    std::optional<std::size_t> layer;
    if (outputs_) layer = reference_.outputs().layers().front();
    applied_.transferred = std::make_shared<TransferredPass>(std::move(batch_norms), layer, std::move(outputs_));
  }

 private:
  [[nodiscard]] torch::Tensor Slot(const std::string& path) const { return GetTensor(applied_.module, path); }

  [[nodiscard]] bool IsRounded(std::size_t index) const {
    return bits_[index] <= 8 && HasKnownInputs(network_.layers[index]);
  }

  [[nodiscard]] double HeldShare() const {
    return static_cast<double>(images_.size(0) - kept_) / static_cast<double>(images_.size(0));
  }

  void Round(std::size_t index, const torch::Tensor& input) {
    ThrowIfInterrupted();
    const Layer& layer = network_.layers[index];
    progress_.Advance(1);
    if (!IsRounded(index)) return;
    const std::vector<LayerSample> samples = reference_.TakeSamples(index);
    if (samples.empty()) return;
    QuantizerOptions plain = options_;
    plain.range = "mse";  // the scales are there already
    const WeightRows rows(GetTensor(network_.module, layer.parameter), layer.output_dim, plain);
    const QuantizedWeight& fit = applied_.fits[index];
    const std::int64_t images = images_.size(0);
    // Rows of a choice among images, or more or fewer than the float network had, have no partners there: then the
    // layer's own outputs are wanted.
    const bool pairs = reference_.image_rows().Fits(index, input, images);
    const auto kept = Moments(index, input, 0, kept_, samples.front(), pairs);
    std::optional<Taken> held_out;
    if (kept && kept_ < images) held_out = Moments(index, input, kept_, images, samples.back(), pairs);
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

  void KeepOutputs(std::size_t layer, const torch::Tensor& output) {
    outputs_ = reference_.outputs().Find(layer, output);
    if (outputs_) outputs_->quantized = outputs_->quantized.clone();
  }

  // What the outputs of a layer should be changed by, so that the sum that they go into is that of the float network:
  // the lack of the other term, in front of the batch norm between. float32 [groups, positions, channels per group].
  [[nodiscard]] torch::Tensor LackOfOther(std::size_t index, const torch::Tensor& rows, std::int64_t begin,
                                          std::int64_t end, const LayerSample& sample) const {
    if (!sample.other.defined() || (joins_[index]->batch_norm && !reference_.slopes(index).defined())) return {};
    const torch::Tensor now = reference_.OtherTerm(index, others_[index], rows, begin, end, sample.positions);
    if (!now.defined()) return {};
    torch::Tensor lack = sample.other - now;
    if (joins_[index]->batch_norm) lack = lack.div_(reference_.slopes(index));
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
                                             std::int64_t last, const LayerSample& sample, bool pairs) {
    const Layer& layer = network_.layers[index];
    const torch::Tensor rows = reference_.image_rows().Of(index, input, images_.size(0), first, last);
    if (rows.numel() == 0) return std::nullopt;
    pairs = pairs && sample.positions.defined() && rows.sizes() == c10::IntArrayRef(sample.sizes);
    const torch::Tensor positions =
        pairs ? sample.positions : DrawPositions(InputPositions(layer, rows), WantedPositions(layer), generator_);
    const torch::Tensor lack = pairs ? LackOfOther(index, rows, first, last, sample) : torch::Tensor();
    torch::Tensor squares, products, input_sum, output_sum, input_pilot, output_pilot;
    const auto add = [](torch::Tensor& sum, const torch::Tensor& part) { sum = sum.defined() ? sum.add_(part) : part; };
    double power = 0.0;
    std::int64_t begin = 0;
    for (const torch::Tensor& part : GatherParts(layer, positions)) {
      torch::Tensor inputs = GatherInputs(layer, rows, part);
      torch::Tensor outputs = !pairs ? FloatOutputs(network_, layer, inputs)
                              : sample.input.defined()
                                  ? FloatOutputs(network_, layer, GatherInputs(layer, sample.input, part))
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
  FloatSide::Pass& reference_;
  const torch::Tensor& images_;
  std::int64_t kept_;
  ProgressSink& progress_;
  std::vector<std::optional<Join>> joins_;
  std::vector<torch::Tensor> others_;             // of every layer: the other term of its sum, while it is needed
  std::optional<OutputReference::Pair> outputs_;  // of the only layer whose outputs can be fitted
  at::Generator generator_;
};

}  // namespace

void CompensateRounding(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                        const QuantizerOptions& options, FloatSide& reference, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  if (reference.images().size(0) == 0) return;
  Compensation(network, applied, bits, options, reference.pass(), progress).Run();
}

void CompensateRounding(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                        const QuantizerOptions& options, const torch::Tensor& images, ProgressSink& progress) {
  if (images.size(0) == 0) return;
  FloatSide reference(network, images);
  CompensateRounding(network, applied, bits, options, reference, progress);
}

}  // namespace bitplan
