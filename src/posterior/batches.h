// What the estimators share: the layers' weights as differentiable tensors, and random minibatches.
#pragma once

#include <torch/script.h>

#include <vector>

#include "bitplan/core/random.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"

namespace bitplan {

// The layers' weight parameters as leaves that record gradients; everything else in the module does not.
// The module keeps sharing storage with `network.module`; the flags are restored at the end of the scope.
class GradientScope {
 public:
  explicit GradientScope(const Network& network);
  ~GradientScope();
  GradientScope(const GradientScope&) = delete;
  GradientScope& operator=(const GradientScope&) = delete;
  [[nodiscard]] const std::vector<torch::Tensor>& weights() const { return weights_; }

 private:
  std::vector<std::pair<torch::Tensor, bool>> flags_;
  std::vector<torch::Tensor> weights_;
};

// `samples` random rows of the data set without repetition (all, in random order, when samples exceeds it): int64.
[[nodiscard]] torch::Tensor DrawSamples(const Dataset& data, std::int64_t samples, RandomStream& stream);

// Labels drawn from the model's own predictive distribution: int64 [n] for logits [n, classes].
[[nodiscard]] torch::Tensor SampleLabels(const torch::Tensor& logits, RandomStream& stream);

// Sum over the batch of -log p(sampled label | image), ready for one backward pass.
[[nodiscard]] torch::Tensor SampledLabelLoss(torch::jit::Module& module, const torch::Tensor& images,
                                             RandomStream& stream);

}  // namespace bitplan
