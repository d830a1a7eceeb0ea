#include "bitplan/models/equalize.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"

namespace bitplan {
namespace {

constexpr std::int64_t kRangeImages = 1024;
constexpr std::int64_t kImagesAtOnce = 128;
constexpr std::int64_t kCheckedImages = 16;
constexpr double kSameAnswers = 1e-4;  // of the largest answer
constexpr double kLeastFactor = 1e-2;  // of a channel, and 1 over it the largest

// What keeps factors of channels, and so may stand between who makes a tensor and who reads it.
bool KeepsFactors(const torch::jit::Node& node) {
  static const std::set<std::string> kinds = {"aten::relu",
                                              "aten::relu_",
                                              "aten::leaky_relu",
                                              "aten::leaky_relu_",
                                              "aten::max_pool1d",
                                              "aten::max_pool2d",
                                              "aten::max_pool3d",
                                              "aten::avg_pool1d",
                                              "aten::avg_pool2d",
                                              "aten::avg_pool3d",
                                              "aten::adaptive_avg_pool1d",
                                              "aten::adaptive_avg_pool2d",
                                              "aten::dropout",
                                              "aten::dropout_",
                                              "aten::feature_dropout",
                                              "aten::adaptive_max_pool2d",
                                              "aten::flatten",
                                              "aten::view",
                                              "aten::reshape",
                                              "aten::contiguous",
                                              "aten::mean"};
  return kinds.contains(node.kind().toQualString());
}

// Where a node of a kind that can be divided by factors has its weight and its bias.
struct MakerPlaces {
  std::size_t weight, bias;
  bool is_norm;
};

std::optional<MakerPlaces> PlacesOfMaker(const torch::jit::Node& node) {
  static const std::map<std::string, MakerPlaces> known = {
      {"aten::batch_norm", {1, 2, true}}, {"aten::layer_norm", {2, 3, true}}, {"aten::conv1d", {1, 2, false}},
      {"aten::conv2d", {1, 2, false}},    {"aten::conv3d", {1, 2, false}},    {"aten::_convolution", {1, 2, false}},
      {"aten::linear", {1, 2, false}}};
  const auto found = known.find(node.kind().toQualString());
  if (found == known.end()) return std::nullopt;
  return found->second;
}

// A tensor that can be evened out.
struct Candidate {
  std::string weight, bias;  // of who makes it; no bias: empty
  int output_dim = 0;        // of that weight
  std::vector<std::size_t> readers;
};

class Equalizer {
 public:
  Equalizer(Network& network, double share) : network_(network), share_(share) {}

  std::vector<EqualizedTensor> Run(const torch::Tensor& images, ProgressSink& progress) {
    network_.module = CloneModule(network_.module);
    const auto candidates = Find();
    const auto ranges = Ranges(candidates, images, progress);
    const torch::Tensor some = images.slice(0, 0, kCheckedImages);
    const torch::Tensor answers = RunForward(network_.module, some).to(torch::kFloat64);
    const double bound = kSameAnswers * WhereFinite(answers).abs().max().item<double>();
    std::vector<EqualizedTensor> done;
    for (const Candidate& candidate : candidates) {
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
    return done;
  }

 private:
  static torch::Tensor WhereFinite(const torch::Tensor& values) {
    return torch::where(values.isfinite(), values, torch::zeros_like(values));
  }

  [[nodiscard]] std::vector<Candidate> Find() {
    const auto graph = InlinedGraph(network_.module);
    const torch::jit::Value* const self = graph->inputs()[0];
    const auto reads = FindLayerReads(*graph, network_.module, network_);
    std::unordered_map<const torch::jit::Node*, std::size_t> layers;
    for (const LayerRead& read : reads) layers[read.node] = read.layer;
    CountUses(*graph, self);
    std::vector<Candidate> found;
    for (const auto& [value, readers] : ValuesOf(reads)) {
      Candidate candidate;
      candidate.readers = readers;
      const bool only_layers = value->uses().size() == readers.size() &&
                               std::all_of(readers.begin(), readers.end(), [&](std::size_t l) { return Scales(l); });
      if (!only_layers) continue;
      const torch::jit::Value* made = value;
      while (KeepsFactors(*made->node())) {
        made = made->node()->input(0);
        if (made->uses().size() != 1) break;
      }
      if (made->uses().size() != (made == value ? readers.size() : 1)) continue;
      const auto places = PlacesOfMaker(*made->node());
      if (!places) continue;
      const torch::jit::Node& node = *made->node();
      candidate.weight = ReadPath(node.input(places->weight), self);
      candidate.bias = ReadPath(node.input(places->bias), self);
      const bool has_bias = node.input(places->bias)->type() != torch::jit::NoneType::get();
      if (candidate.weight.empty() || (has_bias && candidate.bias.empty())) continue;
      if (!UsedOnce(candidate.weight) || (has_bias && !UsedOnce(candidate.bias))) continue;
      if (!places->is_norm) {
        const auto layer = layers.find(&node);
        if (layer == layers.end()) continue;
        candidate.output_dim = network_.layers[layer->second].output_dim;
        if (candidate.output_dim != 0) continue;  // a transposed one, whose groups lie the other way
      }
      found.push_back(std::move(candidate));
    }
    return found;
  }

  [[nodiscard]] bool Scales(std::size_t index) const {
    const Layer& layer = network_.layers[index];
    return layer.uses == 1 && layer.puts_out_products() && layer.rounds_input();
  }

  void CountUses(torch::jit::Graph& graph, const torch::jit::Value* self) {
    ForEachNode(*graph.block(), [&](const torch::jit::Node& node) {
      for (const torch::jit::Value* input : node.inputs()) {
        const std::string path =
            input->type()->isSubtypeOf(*torch::jit::TensorType::get()) && input->node()->kind() == c10::prim::GetAttr
                ? ReadPath(input, self)
                : std::string();
        if (!path.empty()) ++uses_[GetTensor(network_.module, path).data_ptr()];
      }
    });
  }

  [[nodiscard]] bool UsedOnce(const std::string& path) const {
    const auto found = uses_.find(GetTensor(network_.module, path).data_ptr());
    return found != uses_.end() && found->second == 1;
  }

  // Of the first reader of every candidate the largest |value| of every channel, as the weights that read it count
  // channels: float64 [channels].
  [[nodiscard]] std::map<std::size_t, torch::Tensor> Ranges(const std::vector<Candidate>& candidates,
                                                            const torch::Tensor& images, ProgressSink& progress) {
    std::set<std::size_t> wanted;
    for (const Candidate& candidate : candidates) wanted.insert(candidate.readers.front());
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
  [[nodiscard]] std::map<std::string, torch::Tensor> Kept(const Candidate& candidate) const {
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
  [[nodiscard]] bool Divide(const Candidate& candidate, const torch::Tensor& range, EqualizedTensor& result) const {
    const torch::Tensor weight = GetTensor(network_.module, candidate.weight).detach();
    const std::int64_t made = weight.size(0), read = range.size(0);
    if (made == 0 || read % made != 0) return false;
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
    if (!candidate.bias.empty()) GetTensor(network_.module, candidate.bias).detach().div_(factors);
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
  std::unordered_map<const void*, int> uses_;  // of every tensor of the module, in the graph
};

}  // namespace

std::vector<EqualizedTensor> EqualizeRanges(Network& network, const torch::Tensor& images, double share,
                                            ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  return Equalizer(network, share).Run(images, progress);
}

}  // namespace bitplan
