#include "bitplan/sensitivity/displacements.h"

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "bitplan/core/error.h"
#include "posterior/finite.h"
#include "sensitivity/bootstrap.h"
#include "sensitivity/one_layer_runs.h"
#include "sensitivity/predictive_metric.h"
#include "sensitivity/quantized_run.h"

namespace bitplan {
namespace {

// KL of softmax(logits) from softmax(moved) of every image, nats.
torch::Tensor Divergences(const torch::Tensor& logits, const torch::Tensor& moved) {
  return RowDivergences(logits.log_softmax(1), moved.log_softmax(1));
}

double MeanDivergence(const torch::Tensor& logits, const torch::Tensor& moved) {
  return MeanNotNegative(Divergences(logits, moved));
}

}  // namespace

double Displacements::Divergence(const std::vector<int>& columns) const {
  const torch::NoGradGuard no_grad;
  torch::Tensor moved = logits.clone();
  for (std::size_t l = 0; l < columns.size(); ++l) {
    if (columns[l] != kFloatColumn) moved.add_(displacement[static_cast<std::int64_t>(l)][columns[l]]);
  }
  return MeanDivergence(logits, moved);
}

Displacements MeasureDisplacements(const SensitivityInputs& inputs, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  QuantizedRun run(inputs, inputs.options.samples, "sensitivity/samples");
  const auto layers = static_cast<std::int64_t>(inputs.network.layers.size());
  const auto widths = static_cast<std::int64_t>(inputs.widths.size());
  Displacements result;
  result.logits = run.Logits();
  run.RequireSound(result.logits);
  const torch::Tensor masked = result.logits.isneginf();  // these classes are ruled out, and stay so
  result.displacement = torch::empty({layers, widths, result.logits.size(0), result.logits.size(1)});
  const std::int64_t count = run.images().size(0), step = run.step();
  OneLayerRuns runs(inputs, run.quantized(), run.corrects());
  progress.Begin("sensitivity predictive", layers * widths * ((count + step - 1) / step), "settings");
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const auto part = [&](const torch::Tensor& of_all) {
      return of_all.slice(0, begin, std::min(begin + step, count));
    };
    runs.Logits(part(run.images()), [&](std::size_t l, std::size_t k, const torch::Tensor& logits) {
      const torch::Tensor own = result.displacement[static_cast<std::int64_t>(l)][static_cast<std::int64_t>(k)];
      part(own).copy_((logits - part(result.logits)).masked_fill_(part(masked), 0.0));
      progress.Advance(1);
    });
  }
  progress.End("");
  return result;
}

std::vector<std::vector<double>> DivergenceTable(const Displacements& displacements) {
  const torch::NoGradGuard no_grad;
  std::vector<std::vector<double>> table;
  for (std::int64_t l = 0; l < displacements.displacement.size(0); ++l) {
    auto& row = table.emplace_back();
    for (std::int64_t k = 0; k < displacements.displacement.size(1); ++k) {
      const torch::Tensor moved = displacements.logits + displacements.displacement[l][k];
      row.push_back(MeanDivergence(displacements.logits, moved));
    }
  }
  return table;
}

void SaveDisplacements(const Displacements& displacements, const std::filesystem::path& file) {
  torch::jit::Module module("displacements");
  module.register_buffer("logits", displacements.logits);
  module.register_buffer("displacement", displacements.displacement);
  SaveModule(module, file);
}

Displacements LoadDisplacements(const std::filesystem::path& file) {
  const torch::jit::Module module = LoadModule(file);
  if (!module.hasattr("logits") || !module.hasattr("displacement")) {
    throw Error(ErrorKind::kData, file.string() + " holds no displacements");
  }
  return {GetTensor(module, "logits"), GetTensor(module, "displacement")};
}

namespace {

// The same table for outputs of any shape, which are many for every image: of every setting only the divergences are
// kept, and the metric keeps no displacements.
void MeasureDivergences(const SensitivityInputs& inputs, AllocationProblem& problem, ProgressSink& progress) {
  const torch::NoGradGuard no_grad;
  QuantizedRun run(inputs, inputs.options.samples, "sensitivity/samples");
  const auto layers = static_cast<std::int64_t>(problem.units.size());
  const auto widths = static_cast<std::int64_t>(inputs.widths.size());
  const std::int64_t count = run.images().size(0), step = run.step();
  const torch::Tensor reference = run.Logits();
  run.RequireSound(reference);
  const torch::Tensor divergence = torch::empty({layers, widths, count});
  OneLayerRuns runs(inputs, run.quantized(), run.corrects());
  progress.Begin("sensitivity predictive", layers * widths * ((count + step - 1) / step), "settings");
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const auto part = [&](const torch::Tensor& of_all) {
      return of_all.slice(0, begin, std::min(begin + step, count));
    };
    runs.Logits(part(run.images()), [&](std::size_t l, std::size_t k, const torch::Tensor& outputs) {
      part(divergence[static_cast<std::int64_t>(l)][static_cast<std::int64_t>(k)])
          .copy_(inputs.train.Task().Divergences(part(reference), outputs, part(run.labels())));
      progress.Advance(1);
    });
  }
  progress.End("");
  FillWithMeans(problem, divergence, inputs.seed);
}

}  // namespace

AllocationProblem MeasurePredictive(const SensitivityInputs& inputs, ProgressSink& progress) {
  LayerFits fits{{}, inputs.widths, {}};
  const QuantizedLayers quantized = FitAllWidths(inputs);
  AllocationProblem problem = DescribeUnits(inputs, quantized);
  fits.fits = quantized.fits;
  SensitivityInputs known = inputs;
  known.fits = &fits;
  if (inputs.train.likelihood) {
    MeasureDivergences(known, problem, progress);
    if (inputs.displacements != nullptr) *inputs.displacements = {torch::empty({0, 0}), torch::empty({0, 0, 0, 0})};
    return problem;
  }
  Displacements displacements = MeasureDisplacements(known, progress);
  problem.loss_rise = DivergenceTable(displacements);
  const torch::Tensor& logits = displacements.logits;
  const TableBootstrap bootstrap(logits.size(0), inputs.seed);
  for (std::size_t l = 0; l < problem.units.size(); ++l) {
    for (std::size_t k = 0; k < inputs.widths.size(); ++k) {
      const auto at = static_cast<std::int64_t>(k);
      const torch::Tensor moved = logits + displacements.displacement[static_cast<std::int64_t>(l)][at];
      bootstrap.Fill(problem, l, k, Divergences(logits, moved));
    }
  }
  if (inputs.displacements != nullptr) *inputs.displacements = std::move(displacements);
  return problem;
}

}  // namespace bitplan
