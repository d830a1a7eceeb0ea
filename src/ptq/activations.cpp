#include "bitplan/ptq/activations.h"

#include <torch/csrc/jit/ir/ir.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/models/tap.h"
#include "models/inlined_graph.h"
#include "models/layer_reads.h"
#include "ptq/activation_sums.h"
#include "quantizers/activation_readers.h"
#include "quantizers/inserted_quantizers.h"

namespace bitplan {
namespace {

constexpr std::int64_t kImagesAtOnce = 128;
constexpr std::int64_t kRangeImages = 1024;

// The first images pass through the float network, a few at once; how many times it ran.
std::size_t RunImages(torch::jit::Module module, const torch::Tensor& images, const std::string& title,
                      ProgressSink& progress) {
  const std::int64_t count = std::min(kRangeImages, images.size(0));
  progress.Begin(title, count, "images");
  std::size_t passes = 0;
  for (std::int64_t begin = 0; begin < count; begin += kImagesAtOnce) {
    ThrowIfInterrupted();
    const std::int64_t end = std::min(begin + kImagesAtOnce, count);
    (void)RunForward(module, images.slice(0, begin, end));
    ++passes;
    progress.Advance(end - begin);
  }
  progress.End("");
  return passes;
}

// Of every tensor, at the place of the first layer that reads it.
std::vector<ActivationSample> Samples(const Network& network, const std::vector<int>& bits,
                                      const std::vector<std::size_t>& first, bool with_readers,
                                      const torch::Tensor& images, ProgressSink& progress) {
  std::vector<ActivationSample> samples(network.layers.size());
  torch::jit::Module module = network.module;
  at::Generator generator = at::detail::createCPUGenerator(1);
  TapHandlers handlers;
  handlers.on_layer_input = [&](std::size_t layer, const torch::Tensor& input) {
    if (bits[layer] > 16) return;
    samples[first[layer]].Add(input);
    if (with_readers) AddReader(network, layer, input, generator, samples[first[layer]]);
  };
  const Tap tap(network, module, std::move(handlers));
  (void)RunImages(module, images, "ranges of activations", progress);
  return samples;
}

// The width of every tensor, at the place of the first layer that reads it; a layer that is left in float has no say.
std::vector<int> TensorWidths(const Network& network, const std::vector<int>& bits, const std::vector<LayerRead>& reads,
                              const std::vector<std::size_t>& first) {
  std::vector<int> widths(bits.size(), 32);
  std::vector<std::size_t> by(bits.size());  // who said so
  for (std::size_t l = 0; l < bits.size(); ++l) {
    if (bits[l] > 16) continue;
    RequirePlace(network, reads, l);
    int& width = widths[first[l]];
    if (width <= 16 && width != bits[l]) {
      throw Error(ErrorKind::kData, "layers " + network.layers[by[first[l]]].name + " and " + network.layers[l].name +
                                        " read the same tensor, so they need one activation width; the plan gives " +
                                        std::to_string(width) + " and " + std::to_string(bits[l]));
    }
    width = bits[l];
    by[first[l]] = l;
  }
  return widths;
}

void Insert(torch::jit::Value* value, const AffineQuantizer& quantizer) {
  torch::jit::Value* const rounded = InsertQuantizer(NodeBehind(value), value, quantizer);
  rounded->copyMetadata(value);
  value->replaceAllUsesAfterNodeWith(rounded->node(), rounded);
}

}  // namespace

void QuantizeActivations(const Network& network, AppliedPlan& applied, const std::vector<int>& bits,
                         const std::string& range, const torch::Tensor& images, ProgressSink& progress,
                         bool round_sums) {
  if (bits.size() != network.layers.size()) {
    throw Error(ErrorKind::kInternal, "activations: one width per layer expected");
  }
  applied.activations.assign(bits.size(), {});
  if (std::all_of(bits.begin(), bits.end(), [](int width) { return width > 16; })) return;
  const torch::NoGradGuard no_grad;
  torch::jit::Module module = applied.module.clone();
  CopyTensors(applied.module, module);  // a clone unties what submodules share
  torch::jit::Graph& graph = *module.get_method("forward").graph();
  InlineCalls(graph);
  const std::vector<LayerRead> reads = FindLayerReads(graph, module, network);
  const ReadValues values = ValuesOf(reads);
  const std::vector<std::size_t> first = FirstReaders(values, bits.size());
  const std::vector<int> widths = TensorWidths(network, bits, reads, first);
  const std::vector<ActivationSample> samples = Samples(network, bits, first, range == "output", images, progress);
  std::vector<AffineQuantizer> quantizers(bits.size());
  for (std::size_t l = 0; l < bits.size(); ++l) {
    if (widths[l] > 16) continue;
    try {
      quantizers[l] = FitActivation(samples[l], widths[l], range);
    } catch (const Error& error) {
      throw Error(error.kind(), "input of layer " + network.layers[l].name + ": " + error.what());
    }
  }
  for (std::size_t l = 0; l < bits.size(); ++l) applied.activations[l] = quantizers[first[l]];
  for (const auto& [value, readers] : values) {
    const AffineQuantizer& quantizer = quantizers[first[readers.front()]];
    if (quantizer.rounds()) Insert(value, quantizer);
  }
  if (round_sums) {
    RoundSums(network, graph, range, [&] { return RunImages(network.module, images, "ranges of sums", progress); });
  }
  applied.module = module;
}

}  // namespace bitplan
