#include "bitplan/bayes/uncertainty.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

constexpr std::int64_t kBlocks = 10;

// Entropy of every row, nats; 0 log 0 = 0.
torch::Tensor Entropy(const torch::Tensor& probabilities) { return -torch::xlogy(probabilities, probabilities).sum(1); }

// The 95 % quantile of Student's t.
double StudentQuantile95(std::int64_t degrees) {
  constexpr double kQuantiles[] = {6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812,
                                   1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725,
                                   1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697};
  if (degrees <= std::ssize(kQuantiles)) return kQuantiles[degrees - 1];
  return 1.6449 + 1.5238 / static_cast<double>(degrees);  // Cornish and Fisher
}

}  // namespace

RelativeChange CompareMeans(double before, double after, const std::vector<double>& before_without,
                            const std::vector<double>& after_without) {
  const auto blocks = before_without.size();
  if (blocks != after_without.size()) throw Error(ErrorKind::kInternal, "the networks did not meet the same draws");
  RelativeChange change{after / before - 1.0, 0.0, 0.0};
  double mean = 0.0, squares = 0.0;
  const auto without = [&](std::size_t b) { return after_without[b] / before_without[b] - 1.0; };
  for (std::size_t b = 0; b < blocks; ++b) mean += without(b) / static_cast<double>(blocks);
  for (std::size_t b = 0; b < blocks; ++b) squares += (without(b) - mean) * (without(b) - mean);
  const bool known = std::all_of(before_without.begin(), before_without.end(), [](double mean) { return mean > 0.0; });
  if (blocks > 1 && known) {
    change.degrees = static_cast<double>(blocks - 1);
    change.standard_error = std::sqrt(squares * change.degrees / static_cast<double>(blocks));
  }
  return change;
}

BlockRatio RatioOverBlocks(const torch::Tensor& numerator, const torch::Tensor& denominator,
                           const torch::Tensor& chosen) {
  const torch::Tensor rows = chosen.nonzero().reshape({-1});
  const torch::Tensor above = numerator.index_select(0, rows), below = denominator.index_select(0, rows);
  const torch::Tensor whole = below.sum();
  BlockRatio ratio;
  ratio.value = (above.sum() / whole).item<double>();
  // What the inputs of a block add to the ratio, (a - ratio b) / sum b, over what the block leaves of sum b.
  const torch::Tensor block = rows.floor_divide(kInputsPerDraw);
  const auto sums_of = [&](const torch::Tensor& values) {
    return torch::zeros({block.max().item<std::int64_t>() + 1}, torch::kFloat64).index_add_(0, block, values);
  };
  const torch::Tensor present = sums_of(torch::ones_like(below)).gt(0.0), share = sums_of(below) / whole;
  const torch::Tensor parts = sums_of(above - ratio.value * below) / whole / (1.0 - share);
  ratio.blocks = present.sum().item<std::int64_t>();
  if (ratio.blocks < 2) return ratio;
  const auto count = static_cast<double>(ratio.blocks);
  ratio.standard_error = std::sqrt(parts.masked_select(present).square().sum().item<double>() * (count - 1.0) / count);
  return ratio;
}

BoundedChange ChangeOf(const torch::Tensor& before, const torch::Tensor& after, const torch::Tensor& chosen) {
  BoundedChange change{0.0, std::numeric_limits<double>::infinity()};
  const torch::Tensor old = before.to(torch::kFloat64), now = after.to(torch::kFloat64);
  if (!(old.masked_select(chosen).sum().item<double>() > 0.0)) return change;
  const BlockRatio ratio = RatioOverBlocks(now - old, old, chosen);
  change.value = ratio.value;
  if (ratio.blocks < 2) return change;
  change.at_most = std::abs(ratio.value) + StudentQuantile95(ratio.blocks - 1) * ratio.standard_error;
  return change;
}

void UncertaintySum::Add(const torch::Tensor& logits) {
  const torch::Tensor probabilities = logits.detach().to(torch::kFloat64).softmax(1);
  const auto b = static_cast<std::size_t>(draws_ % kBlocks);
  if (b == blocks_.size()) {
    blocks_.push_back({probabilities, Entropy(probabilities), 1});
  } else {
    blocks_[b].probabilities.add_(probabilities);
    blocks_[b].entropy.add_(Entropy(probabilities));
    ++blocks_[b].draws;
  }
  ++draws_;
}

Uncertainty UncertaintySum::Take() const {
  if (draws_ == 0) throw Error(ErrorKind::kInternal, "uncertainty of no draws");
  torch::Tensor probabilities = blocks_[0].probabilities.clone(), entropy = blocks_[0].entropy.clone();
  for (std::size_t b = 1; b < blocks_.size(); ++b) {
    probabilities.add_(blocks_[b].probabilities);
    entropy.add_(blocks_[b].entropy);
  }
  const auto draws = static_cast<double>(draws_);
  const torch::Tensor predictive = probabilities / draws;
  Uncertainty result;
  result.total = Entropy(predictive);
  result.aleatoric = entropy / draws;
  result.epistemic = (result.total - result.aleatoric).clamp_min_(0.0);
  result.predictive = predictive.to(torch::kFloat32);
  for (const Block& block : blocks_) {
    if (blocks_.size() == 1) break;
    const auto rest = static_cast<double>(draws_ - block.draws);
    const double aleatoric = (entropy - block.entropy).mean().item<double>() / rest;
    const double total =
        Entropy((probabilities - block.probabilities).clamp_min_(0.0).div_(rest)).mean().item<double>();
    result.aleatoric_without.push_back(aleatoric);
    result.epistemic_without.push_back(std::max(0.0, total - aleatoric));
  }
  return result;
}

}  // namespace bitplan
