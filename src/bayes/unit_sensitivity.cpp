#include "bitplan/bayes/unit_sensitivity.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/bayes/predict.h"
#include "bitplan/bayes/variational_network.h"
#include "posterior/finite.h"

namespace bitplan {
namespace {

// log p_t of every draw: float32 [images, classes] each.
std::vector<torch::Tensor> LogAnswers(const StoredNetwork& stored, const torch::Tensor& inputs, int draws,
                                      std::uint64_t seed, const InputNames& names) {
  Drawer drawer(stored, names);
  std::vector<torch::Tensor> answers;
  for (int t = 0; t < draws; ++t) answers.push_back(drawer.Logits(inputs, seed, t).log_softmax(1));
  return answers;
}

}  // namespace

AllocationProblem MeasureUnits(const StoredNetwork& reference, const torch::Tensor& images,
                               const Normalizer& normalizer, const std::vector<int>& widths,
                               const std::string& sigma_scale, const QuantizerOptions& quantizer, int draws,
                               std::uint64_t seed, ProgressSink& progress, const InputNames& names) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor inputs = normalizer.Apply(images);
  const auto expected = LogAnswers(reference, inputs, draws, seed, names);
  const std::size_t layers = reference.layers.size();
  AllocationProblem problem;
  problem.widths = widths;
  progress.Begin("widths of means and sigmas", static_cast<std::int64_t>(2 * layers * widths.size()), "entries");
  for (std::size_t l = 0; l < layers; ++l) {
    const Layer& layer = reference.network.layers[l];
    for (const bool of_sigma : {false, true}) {
      Unit unit;
      unit.name = layer.name + (of_sigma ? ".sigma" : ".mean");
      unit.weights = layer.weights();
      unit.scales = of_sigma ? 2 : quantizer.granularity == "channel" ? layer.output_channels() : 1;
      unit.macs = layer.macs;
      auto& row = problem.loss_rise.emplace_back();
      for (const int width : widths) {
        std::vector<BayesWidths> one(layers);
        (of_sigma ? one[l].sigma : one[l].mean) = width;
        VariationalNetwork rounded(reference);
        rounded.Quantize(one, sigma_scale, quantizer, seed);
        const auto answers = LogAnswers(rounded.Store(), inputs, draws, seed, names);
        double divergence = 0.0;
        for (int t = 0; t < draws; ++t) {
          divergence += RowDivergences(expected[t], answers[t]).mean(torch::kFloat64).item<double>();
        }
        row.push_back(std::max(0.0, divergence / draws));
        progress.Advance(1);
      }
      problem.units.push_back(std::move(unit));
    }
  }
  progress.End("");
  problem.Validate();
  return problem;
}

std::vector<BayesWidths> WidthsOf(const std::vector<int>& unit_bits) {
  std::vector<BayesWidths> widths;
  for (std::size_t u = 0; u + 1 < unit_bits.size(); u += 2) {
    widths.push_back({.mean = unit_bits[u], .sigma = unit_bits[u + 1], .sample = kFloatBits});
  }
  return widths;
}

}  // namespace bitplan
