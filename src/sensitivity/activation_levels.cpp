#include "sensitivity/activation_levels.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstdint>

#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "models/layer_reads.h"
#include "posterior/batches.h"
#include "quantizers/activation_readers.h"
#include "sensitivity/read_watch.h"
#include "sensitivity/sketch_draws.h"

namespace bitplan {
namespace {

constexpr std::int64_t kActivationRanges = 256;  // images that ranges are fitted to
constexpr std::int64_t kRangeValues = 1 << 16;   // of a tensor, that they are fitted to

}  // namespace

ActivationLevels FitActivationLevels(const SensitivityInputs& inputs, const std::vector<int>& widths,
                                     const std::string& range) {
  const torch::NoGradGuard no_grad;
  const Network& network = inputs.network;
  ActivationLevels levels{.widths = widths, .tensors = SharedInputs(network), .quantizers = {}};
  RandomStream draws(inputs.seed, "sensitivity/activation-ranges");
  const torch::Tensor index = DrawSamples(inputs.train, kActivationRanges, draws);
  std::vector<ActivationSample> samples(levels.tensors.size(),
                                        ActivationSample{.values = {}, .most_values = kRangeValues, .step = 1});
  at::Generator generator = at::detail::createCPUGenerator(1);
  ReadWatch watch(network, levels.tensors, [&](std::size_t layer, const torch::Tensor& input) {
    if (range == "output") AddReader(network, layer, input, generator, samples[levels.tensors[layer]]);
  });
  for (std::int64_t begin = 0; begin < index.size(0); begin += kSketchBatch) {
    ThrowIfInterrupted();
    const torch::Tensor rows = index.slice(0, begin, std::min(begin + kSketchBatch, index.size(0)));
    (void)RunForward(network.module, inputs.normalizer.Apply(inputs.train.images.index_select(0, rows)));
    for (const auto& [tensor, values] : watch.Take()) samples[tensor].Add(values);
  }
  levels.quantizers.resize(levels.tensors.size());
  const std::vector<bool> has_place = LayersRead(network);
  for (std::size_t l = 0; l < levels.tensors.size(); ++l) {
    std::vector<AffineQuantizer>& fits = levels.quantizers[levels.tensors[l]];
    if (!fits.empty() || !network.layers[l].rounds_input()) continue;
    for (const int width : widths) {
      fits.push_back(has_place[l] ? FitActivation(samples[levels.tensors[l]], width, range) : AffineQuantizer{});
    }
  }
  return levels;
}

}  // namespace bitplan
