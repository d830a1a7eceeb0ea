#include "bitplan/models/equalize.h"

#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"
#include "models/equalizable.h"

namespace bitplan {
namespace {

constexpr std::int64_t kRangeImages = 1024;
constexpr std::int64_t kImagesAtOnce = 128;
constexpr std::int64_t kCheckedImages = 16;
constexpr double kSameAnswers = 1e-4;  // of the largest answer
constexpr double kLeastFactor = 1e-2;  // of a channel, and 1 over it the largest

class Equalizer {
 public:
  Equalizer(Network& network, double share) : network_(network), share_(share) {}

  std::vector<EqualizedTensor> Run(const torch::Tensor& images, ProgressSink& progress) {
    network_.module = CloneModule(network_.module);
    const auto candidates = FindEqualizable(network_);
    const auto ranges = Ranges(candidates, images, progress);
    const torch::Tensor some = images.slice(0, 0, kCheckedImages);
    const torch::Tensor answers = RunForward(network_.module, some).to(torch::kFloat64);
    const double bound = kSameAnswers * WhereFinite(answers).abs().max().item<double>();
    std::vector<EqualizedTensor> done;
    for (const Equalizable& candidate : candidates) {
      ThrowIfInterrupted();
      const auto range = ranges.find(candidate.readers.front());
      if (range == ranges.end()) continue;
      const auto before = Kept(candidate);
      EqualizedTensor result;
      if (!Divide(candidate, range->second, result)) continue;
      const torch::Tensor now = RunForward(network_.module, some).to(torch::kFloat64);
      const torch::Tensor change = WhereFinite(now - answers).abs();
      const bool same = torch::equal(now.isfinite(), answers.isfinite()) && change.max().item<double>() <= bound;
      if (same) {
        done.push_back(std::move(result));
      } else {
        for (const auto& [path, values] : before) GetTensor(network_.module, path).copy_(values);
      }
    }
    RestoreChangedByForward(network_, network_.module);
    return done;
  }

 private:
  static torch::Tensor WhereFinite(const torch::Tensor& values) {
    return torch::where(values.isfinite(), values, torch::zeros_like(values));
  }

  // Of the first reader of every candidate the largest |value| of every channel, as the weights that read it count
  // channels: float64 [channels].
  [[nodiscard]] std::map<std::size_t, torch::Tensor> Ranges(const std::vector<Equalizable>& candidates,
                                                            const torch::Tensor& images, ProgressSink& progress) {
    std::set<std::size_t> wanted;
    for (const Equalizable& candidate : candidates) wanted.insert(candidate.readers.front());
    std::map<std::size_t, torch::Tensor> ranges;
    const std::int64_t count = std::min(kRangeImages, images.size(0));
    progress.Begin("ranges of channels", count, "images");
    TapHandlers handlers;
    handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor& input) {
      if (!wanted.contains(layer) || input.numel() == 0) return;
      const std::int64_t channel = network_.layers[layer].is_convolution() ? 1 : input.dim() - 1;
      const torch::Tensor most = input.detach().abs().transpose(0, channel).flatten(1).amax(1).to(torch::kFloat64);
      torch::Tensor& range = ranges[layer];
      range = range.defined() ? torch::maximum(range, most) : most;
    };
    {
      const Tap tap(network_, network_.module, std::move(handlers));
      for (std::int64_t begin = 0; begin < count; begin += kImagesAtOnce) {
        ThrowIfInterrupted();
        const std::int64_t end = std::min(begin + kImagesAtOnce, count);
        (void)RunForward(network_.module, images.slice(0, begin, end));
        progress.Advance(end - begin);
      }
    }
    progress.End("");
    return ranges;
  }

  // The tensors that a candidate changes, as they are.
  [[nodiscard]] std::map<std::string, torch::Tensor> Kept(const Equalizable& candidate) const {
    std::map<std::string, torch::Tensor> kept;
    const auto keep = [&](const std::string& path) {
      if (!path.empty()) kept[path] = GetTensor(network_.module, path).detach().clone();
    };
    keep(candidate.weight);
    keep(candidate.bias);
    for (const std::size_t reader : candidate.readers) keep(network_.layers[reader].parameter);
    return kept;
  }

  // The weight of a reader as [groups, others, channels of a group, places of the window], channels as the input counts
  // them; a view.
  [[nodiscard]] torch::Tensor ByInput(std::size_t reader) const {
    const Layer& layer = network_.layers[reader];
    torch::Tensor weight = GetTensor(network_.module, layer.parameter).detach();
    const bool inputs_first = layer.output_dim == 1;  // x @ W, transposed convolutions
    const std::int64_t groups = layer.window ? layer.window->groups : 1;
    if (inputs_first) {
      return weight.view({groups, weight.size(0) / groups, weight.size(1), -1}).transpose(1, 2);
    }
    return weight.view({groups, weight.size(0) / groups, weight.size(1), -1});
  }

  // Divides what makes the tensor and multiplies what reads it; false where the numbers of channels do not fit.
  [[nodiscard]] bool Divide(const Equalizable& candidate, const torch::Tensor& range, EqualizedTensor& result) const {
    const torch::Tensor weight = GetTensor(network_.module, candidate.weight).detach();
    const std::int64_t made = weight.size(0), read = range.size(0);
    if (made == 0 || read % made != 0) return false;
    if (!candidate.bias.empty()) {
      const torch::Tensor bias = GetTensor(network_.module, candidate.bias);
      if (bias.size(0) != made || bias.dim() > weight.dim()) return false;
    }
    torch::Tensor of_weights = torch::zeros({read}, torch::kFloat64);
    for (const std::size_t reader : candidate.readers) {
      const torch::Tensor by_input = ByInput(reader);
      if (by_input.size(0) * by_input.size(2) != read) return false;
      of_weights = torch::maximum(of_weights, by_input.abs().amax({1, 3}).flatten().to(torch::kFloat64));
    }
    // A flattened channel is several in a row.
    const torch::Tensor values = range.reshape({made, -1}).amax(1), weights = of_weights.reshape({made, -1}).amax(1);
    const torch::Tensor sound = values.gt(0.0) & weights.gt(0.0);
    if (sound.sum().item<std::int64_t>() < 2) return false;
    torch::Tensor logs = share_ * values.log() - (1.0 - share_) * weights.log();
    logs = torch::where(sound, logs - logs.masked_select(sound).mean(), torch::zeros_like(logs));
    const torch::Tensor factors = logs.exp().clamp(kLeastFactor, 1.0 / kLeastFactor).to(torch::kFloat32);
    const auto spread = [&](const torch::Tensor& ranges) {
      const torch::Tensor of_sound = ranges.masked_select(sound);
      return of_sound.max().item<double>() / std::exp(of_sound.log().mean().item<double>());
    };
    result = {candidate.weight.substr(0, candidate.weight.rfind('.')), {}, spread(values), spread(values / factors)};
    std::vector<std::int64_t> along(static_cast<std::size_t>(weight.dim()), 1);
    along[0] = made;
    weight.div_(factors.reshape(along));
    if (!candidate.bias.empty()) {
      const torch::Tensor bias = GetTensor(network_.module, candidate.bias).detach();
      bias.div_(factors.reshape(c10::IntArrayRef(along).slice(0, static_cast<std::size_t>(bias.dim()))));
    }
    const torch::Tensor by_channel = factors.repeat_interleave(read / made);
    for (const std::size_t reader : candidate.readers) {
      const torch::Tensor by_input = ByInput(reader);
      by_input.mul_(by_channel.reshape({by_input.size(0), 1, by_input.size(2), 1}));
      result.read_by.push_back(network_.layers[reader].name);
    }
    return true;
  }

  Network& network_;
  double share_;
};

}  // namespace

std::vector<EqualizedTensor> EqualizeRanges(Network& network, const torch::Tensor& images, double share,
                                            ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  return Equalizer(network, share).Run(images, progress);
}

}  // namespace bitplan
