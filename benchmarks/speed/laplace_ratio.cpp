// Claim: the laplace posterior costs at most 1.3 times plain forward and backward passes over the same samples.
// Command: build/release/benchmarks/laplace_ratio [ARCHITECTURE] [SAMPLES] [THREADS]
// Prints one JSON line: seconds of both (median of the repetitions, taken in turn) and their ratio.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bitplan/data/dataset.h"
#include "bitplan/models/architectures.h"
#include "bitplan/models/network.h"
#include "bitplan/posterior/posterior.h"
#include "timing.h"

namespace {

using namespace bitplan;

constexpr int kRepetitions = 5;
constexpr int kBatch = 64;

// What one epoch of gradients costs anybody: batches, normalization, forward, loss of the labels, backward to the
// weights.
void PlainPasses(const Network& network, const Dataset& data, const Normalizer& normalizer) {
  torch::jit::Module module = network.module;
  std::vector<torch::Tensor> weights;
  for (const Layer& layer : network.layers) {
    weights.push_back(GetTensor(module, layer.parameter).set_requires_grad(true));
  }
  for (std::int64_t begin = 0; begin < data.size(); begin += kBatch) {
    const std::int64_t end = std::min<std::int64_t>(begin + kBatch, data.size());
    const torch::Tensor logits = module.forward({normalizer.Apply(data.images.slice(0, begin, end))}).toTensor();
    const torch::Tensor loss = torch::nll_loss(logits.log_softmax(1), data.labels.slice(0, begin, end));
    (void)torch::autograd::grad({loss}, weights);
  }
  for (torch::Tensor& weight : weights) weight.set_requires_grad(false);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "resnet20";
  const std::int64_t samples = argc > 2 ? std::stoll(argv[2]) : 1024;
  at::set_num_threads(argc > 3 ? std::stoi(argv[3]) : static_cast<int>(std::thread::hardware_concurrency()));

  const Architecture& architecture = FindArchitecture(name);
  const Network network = DescribeNetwork(BuildArchitecture(name, 1), name, architecture.input_shape);
  std::vector<std::int64_t> shape = architecture.input_shape;
  shape.insert(shape.begin(), samples);
  const Dataset data{"random", torch::randint(0, 256, shape, torch::kUInt8),
                     torch::randint(0, architecture.classes, {samples}, torch::kInt64), architecture.classes};
  const Normalizer normalizer{DataOptions{}};
  PosteriorOptions options;
  options.samples = static_cast<int>(samples);
  options.batch = kBatch;

  std::vector<double> plain, laplace;
  PlainPasses(network, data, normalizer);  // warm-up
  for (int i = 0; i < kRepetitions; ++i) {
    plain.push_back(Seconds([&] { PlainPasses(network, data, normalizer); }));
    laplace.push_back(Seconds([&] { (void)EstimatePosterior(network, data, normalizer, options, 1, SilentSink()); }));
  }
  const nlohmann::ordered_json result = {{"architecture", name},
                                         {"samples", samples},
                                         {"batch", kBatch},
                                         {"threads", at::get_num_threads()},
                                         {"plain_seconds", Median(plain)},
                                         {"laplace_seconds", Median(laplace)},
                                         {"ratio", Median(laplace) / Median(plain)}};
  std::puts(result.dump().c_str());
}
