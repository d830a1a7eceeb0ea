#include "bitplan/bayes/predict.h"

#include <fmt/format.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/interrupt.h"
#include "bitplan/core/random.h"
#include "bitplan/core/statistics.h"
#include "bitplan/verify/evaluate.h"
#include "posterior/finite.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBatch = kInputsPerDraw;
constexpr std::int64_t kFewBlocks = 20;  // fewer cannot be resampled

}  // namespace

DistinctImages Distinct(const Dataset& data) {
  DistinctImages distinct{{}, {}, data.labels, data.name};
  if (data.size() == 0) throw Error(ErrorKind::kData, data.name + " holds no images");
  const torch::Tensor first = FirstOfRuns(data.images);
  const torch::Tensor rows = first.nonzero().squeeze(1);
  distinct.images = data.images.index_select(0, rows);
  distinct.positions = data.positions.defined() ? data.positions.index_select(0, rows) : rows;
  distinct.origin = data.origin.empty() ? data.name : data.origin;
  distinct.of_row = first.to(torch::kInt64).cumsum(0).sub_(1);
  return distinct;
}

std::string DistinctImages::ImageName(std::int64_t image) const {
  return fmt::format("image {} of {}", positions.defined() ? positions[image].item<std::int64_t>() : image,
                     origin.empty() ? name : origin);
}

torch::Tensor DistinctImages::Repeated() const { return torch::bincount(of_row, {}, size()).gt(1); }

Drawer::Drawer(const StoredNetwork& stored, InputNames names)
    : stored_(stored), names_(std::move(names)), module_(CloneModule(stored.network.module)) {
  for (std::size_t l = 0; l < stored.layers.size(); ++l) {
    const Layer& layer = stored.network.layers[l];
    means_.push_back(stored.layers[l].Mean(layer.output_dim));
    sigmas_.push_back(stored.layers[l].Sigma());
    slots_.emplace_back(module_, layer.parameter);
  }
}

torch::Tensor Drawer::Logits(const torch::Tensor& inputs, std::uint64_t seed, int t) {
  const torch::NoGradGuard no_grad;
  const std::int64_t batches = (inputs.size(0) + kBatch - 1) / kBatch;
  std::vector<torch::Tensor> logits;
  for (std::int64_t b = 0; b < batches; ++b) {
    ThrowIfInterrupted();
    for (std::size_t l = 0; l < slots_.size(); ++l) {
      slots_[l].Set(stored_.DrawLayer(l, means_[l], sigmas_[l], seed, t * batches + b));
    }
    logits.push_back(RunForward(module_, inputs.slice(0, b * kBatch, std::min((b + 1) * kBatch, inputs.size(0)))));
  }
  const torch::Tensor all = torch::cat(logits);
  const torch::Tensor bad = HaveProbabilities(all).logical_not().nonzero();
  if (bad.size(0) == 0) return all;
  const auto first = bad[0].item<std::int64_t>();
  if (bad.size(0) == all.size(0) && AreFinite({inputs[first]})) {
    throw Error(ErrorKind::kData, "the Bayesian network's outputs are not finite; lower bayes.learning_rate");
  }
  throw NotFinite("the Bayesian network's output", names_ ? names_(first) : fmt::format("image {}", first));
}

Uncertainty Predict(const StoredNetwork& stored, const torch::Tensor& images, const Normalizer& normalizer, int draws,
                    std::uint64_t seed, ProgressSink& progress, const std::string& label, const InputNames& names) {
  const torch::NoGradGuard no_grad;
  Drawer drawer(stored, names);
  const torch::Tensor inputs = normalizer.Apply(images);
  UncertaintySum sum;
  progress.Begin(label, draws, "draws");
  for (int t = 0; t < draws; ++t) {
    sum.Add(drawer.Logits(inputs, seed, t));
    progress.Advance(1);
  }
  progress.End("");
  return sum.Take();
}

Uncertainty Predict(const StoredNetwork& stored, const DistinctImages& images, const Normalizer& normalizer, int draws,
                    std::uint64_t seed, ProgressSink& progress, const std::string& label) {
  return Predict(stored, images.images, normalizer, draws, seed, progress, label,
                 [&](std::int64_t image) { return images.ImageName(image); });
}

BayesEvaluation Judge(const Uncertainty& uncertainty, const DistinctImages& data, bool labelled) {
  BayesEvaluation result;
  // log p is a vector of logits whose softmax is p.
  const torch::Tensor log_p = uncertainty.predictive.clamp_min(1e-12).log();
  if (labelled) result.metrics = EvaluateLogits(log_p.index_select(0, data.of_row), data.labels).metrics;
  torch::Tensor right =
      uncertainty.predictive.argmax(1).index_select(0, data.of_row).eq(data.labels).to(torch::kFloat32);
  if (!labelled) right.zero_();
  const torch::Tensor zeros = torch::zeros({data.size()});
  result.labels = zeros.index_add(0, data.of_row, torch::ones_like(right));
  result.correct = zeros.index_add(0, data.of_row, right) / result.labels;
  result.total = uncertainty.total.mean().item<double>();
  result.aleatoric = uncertainty.aleatoric.mean().item<double>();
  result.epistemic = uncertainty.epistemic.mean().item<double>();
  result.aleatoric_of = uncertainty.aleatoric.to(torch::kFloat32);
  result.epistemic_of = uncertainty.epistemic.to(torch::kFloat32);
  result.aleatoric_without = uncertainty.aleatoric_without;
  result.epistemic_without = uncertainty.epistemic_without;
  return result;
}

torch::Tensor DrawBlocks(std::int64_t count, std::int64_t first) {
  return torch::arange(count, torch::kInt64).floor_divide_(kInputsPerDraw).add_(first);
}

ClusteredDrop CompareClustered(const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& labels,
                               const torch::Tensor& block, int resamples, std::uint64_t seed) {
  torch::Tensor counts = labels.to(torch::kFloat64).contiguous();
  torch::Tensor differences = (before - after).to(torch::kFloat64).mul(counts).contiguous();
  if (differences.numel() == 0) throw Error(ErrorKind::kInternal, "a comparison on no images");
  ClusteredDrop result;
  result.drop = differences.sum().item<double>() / counts.sum().item<double>();
  const std::int64_t blocks = block.max().item<std::int64_t>() + 1;
  if (blocks >= kFewBlocks) {
    const torch::Tensor zeros = torch::zeros({blocks}, torch::kFloat64);
    differences = zeros.index_add(0, block, differences);
    counts = zeros.index_add(0, block, counts);
  }
  const auto *difference = differences.data_ptr<double>(), *count = counts.data_ptr<double>();
  const auto n = static_cast<std::uint64_t>(differences.numel());
  RandomStream stream(seed, "bayes/bootstrap");
  std::vector<double> drops;
  for (int r = 0; r < resamples; ++r) {
    double sum = 0.0, all = 0.0;
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t drawn = stream.Index(n);
      sum += difference[drawn];
      all += count[drawn];
    }
    drops.push_back(sum / all);
  }
  std::sort(drops.begin(), drops.end());
  const auto at = [&](double share) { return drops[static_cast<std::size_t>(share * (resamples - 1) + 0.5)]; };
  result.ci_low = at(0.025);
  result.ci_high = at(0.975);
  return result;
}

BoundedDrop DropOf(const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& labels,
                   const torch::Tensor& chosen) {
  const torch::Tensor counts = labels.to(torch::kFloat64);
  const BlockRatio ratio = RatioOverBlocks((before - after).to(torch::kFloat64) * counts, counts, chosen);
  if (ratio.blocks < 2) return {ratio.value, std::numeric_limits<double>::infinity()};
  const double quantile = StudentQuantile975(static_cast<double>(ratio.blocks - 1));
  const auto images = static_cast<double>(chosen.sum().item<std::int64_t>());
  return {ratio.value, ratio.value + std::max(quantile * ratio.standard_error, -std::log(0.025) / images)};
}

}  // namespace bitplan
