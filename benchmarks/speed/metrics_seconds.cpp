// Claim: metrics that run the network with one layer quantized do not compute again what comes before that layer: half
// of the arithmetic, and of fisher-output, which looks at that layer alone, all but one part in as many as there are
// layers. Command: build/release/benchmarks/metrics_seconds [ARCHITECTURE] [IMAGES] Prints one JSON line: seconds of
// every metric, and of as many plain passes as one for every layer and width.
#include <ATen/Parallel.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bitplan/data/dataset.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "timing.h"

namespace {

using namespace bitplan;

constexpr std::int64_t kBatch = 64;

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "resnet20";
  const std::int64_t images = argc > 2 ? std::stoll(argv[2]) : 128;
  at::set_num_threads(static_cast<int>(std::thread::hardware_concurrency()));

  const Architecture& architecture = FindArchitecture(name);
  const Network network = DescribeNetwork(BuildArchitecture(name, 1), name, architecture.input_shape);
  std::vector<std::int64_t> shape = architecture.input_shape;
  shape.insert(shape.begin(), images);
  const Dataset data{"random", torch::randint(0, 256, shape, torch::kUInt8),
                     torch::randint(0, architecture.classes, {images}, torch::kInt64), architecture.classes};
  const Normalizer normalizer{DataOptions{}};
  const QuantizerOptions quantizer;
  const std::vector<int> widths = {1, 2, 3, 4, 5, 6, 7, 8};
  const LayerFits fits = FitLayers(network, widths, quantizer, nullptr);

  nlohmann::ordered_json result = {
      {"architecture", name}, {"images", images}, {"widths", widths.size()}, {"threads", at::get_num_threads()}};
  const torch::Tensor normalized = normalizer.Apply(data.images);
  const auto passes = network.layers.size() * widths.size();
  const auto plain = [&] {
    const torch::NoGradGuard no_grad;
    for (std::size_t i = 0; i < passes; ++i) {
      for (const torch::Tensor& batch : normalized.split(kBatch)) (void)RunForward(network.module, batch);
    }
  };
  (void)RunForward(network.module, normalized.slice(0, 0, kBatch));  // warm-up
  result["plain_passes_seconds"] = Seconds(plain);
  for (const char* metric : {"measured", "predictive", "activation-distance", "fisher-output"}) {
    SensitivityOptions options;
    options.metric = metric;
    options.samples = static_cast<int>(images);
    result[metric] = Seconds([&] {
      (void)MeasureSensitivity({.network = network,
                                .posterior = nullptr,
                                .train = data,
                                .normalizer = normalizer,
                                .quantizer = quantizer,
                                .options = options,
                                .widths = widths,
                                .seed = 1,
                                .fits = &fits},
                               SilentSink());
    });
  }
  std::puts(result.dump().c_str());
}
