// Claim: the sensitivity of a network of 85 million weights at eight widths costs at most 2.5 times its posterior on as
// many images; and once it is known, bits for all layers and the network with them take less than three seconds.
// Command: build/release/benchmarks/sensitivity_ratio [IMAGES] [PIXELS] [BLOCKS] [THREADS]
// An untrained vision transformer (vision_transformer.h) and random images. The sensitivity includes what the stage
// includes: the inputs of all layers that ranges are fitted to, and the search for scales. A BLAS
// with threads of its own takes their number from OPENBLAS_NUM_THREADS. Prints one JSON line.
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bitplan/allocators/allocator.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/layer_inputs.h"
#include "bitplan/models/network.h"
#include "bitplan/posterior/posterior.h"
#include "bitplan/ptq/apply.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "timing.h"
#include "vision_transformer.h"

namespace {

using namespace bitplan;

constexpr std::int64_t kPositions = 2048;  // inputs of every layer that ranges are fitted to, as in a run

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t images = argc > 1 ? std::stoll(argv[1]) : 64;
  VisionTransformer shape;
  if (argc > 2) shape.size = std::stoll(argv[2]);
  if (argc > 3) shape.depth = std::stoi(argv[3]);
  at::set_num_threads(argc > 4 ? std::stoi(argv[4]) : static_cast<int>(std::thread::hardware_concurrency()));

  const Network network =
      DescribeNetwork(BuildVisionTransformer(shape, 1), "vision-transformer", {3, shape.size, shape.size});
  const Dataset data{"random", torch::randint(0, 256, {images, 3, shape.size, shape.size}, torch::kUInt8),
                     torch::randint(0, shape.classes, {images}, torch::kInt64), static_cast<int>(shape.classes)};
  const Normalizer normalizer{DataOptions{}};
  const QuantizerOptions quantizer;
  PosteriorOptions posterior_options;
  posterior_options.samples = static_cast<int>(images);
  SensitivityOptions sensitivity;
  sensitivity.samples = static_cast<int>(images);
  const std::vector<int> widths = {1, 2, 3, 4, 5, 6, 7, 8};

  Posterior posterior;
  const double posterior_seconds =
      Seconds([&] { posterior = EstimatePosterior(network, data, normalizer, posterior_options, 1, SilentSink()); });
  std::vector<QuantizerEvidence> evidence(network.layers.size());
  const double evidence_seconds = Seconds([&] {
    const auto inputs = SampleLayerInputs(network, normalizer.Apply(data.images), kPositions, 1);
    for (std::size_t l = 0; l < inputs.size(); ++l) evidence[l].inputs = inputs[l];
  });
  LayerFits fits;
  const double fits_seconds = Seconds([&] { fits = FitLayers(network, widths, quantizer, &evidence); });
  AllocationProblem table;
  const double table_seconds = Seconds([&] {
    table = MeasureSensitivity({.network = network,
                                .posterior = &posterior,
                                .train = data,
                                .normalizer = normalizer,
                                .quantizer = quantizer,
                                .options = sensitivity,
                                .widths = widths,
                                .seed = 1,
                                .fits = &fits},
                               SilentSink());
  });
  AllocateOptions allocate;
  allocate.budget = {AverageBits(), 3.0};
  std::optional<AppliedPlan> applied;
  const double allocate_seconds = Seconds([&] {
    const auto bits = Allocate(table, allocate, 1).bits;
    (void)WidthConfidence(table, {}, allocate, 1, Allocate(table, allocate, 1));
    applied = ApplyBits(network, bits, {}, quantizer, {}, &fits);
  });
  const double sensitivity_seconds = evidence_seconds + fits_seconds + table_seconds;
  const nlohmann::ordered_json result = {{"weights", network.quantizable_weights()},
                                         {"images", images},
                                         {"pixels", shape.size},
                                         {"widths", widths.size()},
                                         {"threads", at::get_num_threads()},
                                         {"posterior_seconds", posterior_seconds},
                                         {"sensitivity_seconds", sensitivity_seconds},
                                         {"ratio", sensitivity_seconds / posterior_seconds},
                                         {"layer_inputs_seconds", evidence_seconds},
                                         {"scales_seconds", fits_seconds},
                                         {"table_seconds", table_seconds},
                                         {"allocate_seconds", allocate_seconds}};
  std::puts(result.dump().c_str());
}
