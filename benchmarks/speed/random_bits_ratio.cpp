// Claim: random-bits, 300 minibatches of 128 images, takes at most 1.5 epochs of plain training of the same model.
// Command: build/release/benchmarks/random_bits_ratio [ARCHITECTURE] [STEPS] [EPOCH_IMAGES]
// Both are timed over STEPS minibatches of random images, in turn, and scaled to 300 of them and to an epoch of
// EPOCH_IMAGES (default 45,000: CIFAR-10 without its calibration images). Prints one JSON line.
#include <ATen/Parallel.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bitplan/allocators/allocator.h"
#include "bitplan/models/architectures.h"
#include "bitplan/sensitivity/network_oracle.h"
#include "bitplan/training/train.h"
#include "timing.h"

namespace {

using namespace bitplan;

constexpr int kRepetitions = 3;
constexpr int kBatch = 128;

// A table as the sensitivity stage would give it: the squared rounding errors of every layer.
AllocationProblem Table(const Network& network, const std::vector<int>& widths) {
  AllocationProblem problem;
  problem.widths = widths;
  for (const Layer& layer : network.layers) {
    const WeightRows rows(GetTensor(network.module, layer.parameter), layer.output_dim, {});
    Unit& unit = problem.units.emplace_back();
    unit.name = layer.name;
    unit.weights = layer.weights();
    unit.scales = rows.rows();
    unit.macs = layer.macs;
    problem.loss_rise.emplace_back();
    for (const int width : widths) problem.loss_rise.back().push_back(1e-3 * rows.Fit(width, "auto").error);
  }
  return problem;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "resnet20";
  const int steps = argc > 2 ? std::stoi(argv[2]) : 20;
  const double epoch_images = argc > 3 ? std::stod(argv[3]) : 45000.0;

  const Architecture& architecture = FindArchitecture(name);
  const Network network = DescribeNetwork(BuildArchitecture(name, 1), name, architecture.input_shape);
  std::vector<std::int64_t> shape = architecture.input_shape;
  shape.insert(shape.begin(), std::int64_t{steps} * kBatch);
  const Dataset data{"random", torch::randint(0, 256, shape, torch::kUInt8),
                     torch::randint(0, architecture.classes, {shape[0]}, torch::kInt64), architecture.classes};
  const Normalizer normalizer{DataOptions{}};
  const QuantizerOptions quantizer;
  const std::vector<int> widths = {1, 2, 3, 4, 5, 6, 7, 8};
  const AllocationProblem table = Table(network, widths);
  const SensitivityInputs inputs{.network = network,
                                 .posterior = nullptr,
                                 .train = data,
                                 .normalizer = normalizer,
                                 .quantizer = quantizer,
                                 .options = {},
                                 .widths = widths,
                                 .seed = 1};
  AllocateOptions options;
  options.allocator = "random-bits";
  options.budget = {AverageBits(), 3.0};
  options.bits = widths;
  options.random_bits.steps = steps;
  TrainOptions training;
  training.epochs = 1;
  training.optimizer = "sgd";
  training.batch = kBatch;
  const auto checkpoint = std::filesystem::temp_directory_path() / "bitplan-random-bits-ratio.checkpoint";

  std::vector<double> plain, random_bits;
  for (int i = 0; i < kRepetitions; ++i) {
    torch::jit::Module module = BuildArchitecture(name, 1);
    plain.push_back(
        Seconds([&] { (void)Train(module, data, normalizer, training, 1, checkpoint, "benchmark", SilentSink()); }));
    std::filesystem::remove(checkpoint);
    random_bits.push_back(Seconds([&] {
      const auto oracle = MakeNetworkOracle(inputs, kBatch);
      (void)Allocate(table, options, 1, oracle.get(), SilentSink());
    }));
  }
  const double epoch = Median(plain) * epoch_images / static_cast<double>(shape[0]);
  const double default_steps = static_cast<double>(RandomBitsOptions{}.steps);
  const double whole = Median(random_bits) * default_steps / steps;
  const nlohmann::ordered_json result = {{"architecture", name},
                                         {"steps", steps},
                                         {"batch", kBatch},
                                         {"threads", at::get_num_threads()},
                                         {"epoch_seconds", epoch},
                                         {"random_bits_seconds", whole},
                                         {"random_bits_steps", default_steps},
                                         {"epochs", whole / epoch}};
  std::puts(result.dump().c_str());
}
