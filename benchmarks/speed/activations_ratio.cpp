// Claim: the sensitivity of weights and activations together costs at most 1.3 times that of weights alone, because one
// backward pass serves both.
// Command: build/release/benchmarks/activations_ratio [ARCHITECTURE] [SAMPLES] [THREADS]
// Random images; weights at 1 to 8 bits, activations at 2 to 8. The posterior and the scales of the weights are there
// before, as in a run; fitting the levels of activations counts. Prints one JSON line: processor seconds of both
// (median of the repetitions, taken in turn) and their ratio. Processor time, because other work on the machine moves
// the clock; a BLAS with threads of its own takes their number from OPENBLAS_NUM_THREADS.
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <cstdio>
#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bitplan/data/dataset.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "bitplan/posterior/posterior.h"
#include "bitplan/quantizers/layer_fits.h"
#include "bitplan/sensitivity/sensitivity.h"
#include "sensitivity/activation_rises.h"
#include "timing.h"

namespace {

using namespace bitplan;

constexpr int kRepetitions = 7;

double ProcessorSeconds(const std::function<void()>& work) {
  const std::clock_t begin = std::clock();
  work();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "resnet20";
  const std::int64_t samples = argc > 2 ? std::stoll(argv[2]) : 2048;
  at::set_num_threads(argc > 3 ? std::stoi(argv[3]) : 1);

  const Architecture& architecture = FindArchitecture(name);
  const Network network = DescribeNetwork(BuildArchitecture(name, 1), name, architecture.input_shape);
  std::vector<std::int64_t> shape = architecture.input_shape;
  shape.insert(shape.begin(), samples);
  const Dataset data{"random", torch::randint(0, 256, shape, torch::kUInt8),
                     torch::randint(0, architecture.classes, {samples}, torch::kInt64), architecture.classes};
  const Normalizer normalizer{DataOptions{}};
  PosteriorOptions posterior_options;
  posterior_options.samples = 256;
  const Posterior posterior = EstimatePosterior(network, data, normalizer, posterior_options, 1, SilentSink());
  QuantizerOptions quantizer;
  quantizer.range = "mse";
  const std::vector<int> widths = {1, 2, 3, 4, 5, 6, 7, 8}, activation_widths = {2, 3, 4, 5, 6, 7, 8};
  const LayerFits fits = FitLayers(network, widths, quantizer, nullptr);
  SensitivityOptions options;
  options.samples = static_cast<int>(samples);
  SensitivityInputs inputs{.network = network,
                           .posterior = &posterior,
                           .train = data,
                           .normalizer = normalizer,
                           .quantizer = quantizer,
                           .options = options,
                           .widths = widths,
                           .seed = 1,
                           .fits = &fits};
  const auto weights_alone = [&] {
    inputs.activations = nullptr;
    (void)MeasureSensitivity(inputs, SilentSink());
  };
  const auto both_together = [&] {
    ActivationMeter meter(inputs, activation_widths, "mse");
    inputs.activations = &meter;
    (void)MeasureSensitivity(inputs, SilentSink());
    (void)meter.Finish(widths);
  };
  std::vector<double> weights, both;
  weights_alone();  // warm-up
  for (int i = 0; i < kRepetitions; ++i) {
    weights.push_back(ProcessorSeconds(weights_alone));
    both.push_back(ProcessorSeconds(both_together));
  }
  const nlohmann::ordered_json result = {{"architecture", name},
                                         {"samples", samples},
                                         {"threads", at::get_num_threads()},
                                         {"repetitions", kRepetitions},
                                         {"weights_seconds", Median(weights)},
                                         {"both_seconds", Median(both)},
                                         {"ratio", Median(both) / Median(weights)}};
  std::puts(result.dump().c_str());
}
