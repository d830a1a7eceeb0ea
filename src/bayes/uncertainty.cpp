#include "bitplan/bayes/uncertainty.h"

#include <torch/torch.h>

#include "bitplan/core/error.h"

namespace bitplan {
namespace {

// Entropy of every row, nats; 0 log 0 = 0.
torch::Tensor Entropy(const torch::Tensor& probabilities) {
  return -torch::xlogy(probabilities, probabilities).sum(1);
}

}  // namespace

void UncertaintySum::Add(const torch::Tensor& logits) {
  const torch::Tensor probabilities = logits.detach().to(torch::kFloat64).softmax(1);
  const torch::Tensor entropy = Entropy(probabilities);
  probabilities_ = draws_ == 0 ? probabilities : probabilities_.add_(probabilities);
  entropy_ = draws_ == 0 ? entropy : entropy_.add_(entropy);
  ++draws_;
}

Uncertainty UncertaintySum::Take() const {
  if (draws_ == 0) throw Error(ErrorKind::kInternal, "uncertainty of no draws");
  const auto draws = static_cast<double>(draws_);
  const torch::Tensor predictive = probabilities_ / draws;
  Uncertainty result;
  result.total = Entropy(predictive);
  result.aleatoric = entropy_ / draws;
  result.epistemic = (result.total - result.aleatoric).clamp_min_(0.0);
  result.predictive = predictive.to(torch::kFloat32);
  return result;
}

}  // namespace bitplan
