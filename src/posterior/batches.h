// What the estimators share: the layers' weights as differentiable tensors, and random minibatches.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <vector>

#include "bitplan/core/random.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "likelihoods/categorical.h"

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

// The gradients of a scalar; zero for a tensor that it does not depend on, such as a layer that no image of this
// minibatch reaches. Error(kData) where an operation has no derivative.
[[nodiscard]] std::vector<torch::Tensor> GradientsOf(const torch::Tensor& scalar, const std::vector<torch::Tensor>& of,
                                                     bool create_graph = false);

// Error(kData) that names the first layer whose weights no gradient reaches: a forward under torch.no_grad(), or one
// that detaches. `data`: its first image is tried, then as many others as it takes to reach every layer.
void RequireGradients(const Network& network, const Dataset& data, const Normalizer& normalizer);

// `samples` random rows of the data set without repetition (all, in random order, when samples exceeds it): int64.
[[nodiscard]] torch::Tensor DrawSamples(const Dataset& data, std::int64_t samples, RandomStream& stream);

// A scalar whose gradient g with respect to the weights has E[g g'] = N F over the random signs, for the N images
// `rows` (int64 [N]) of `data` and F their mean Fisher information: Likelihood::Sketch of the data's task. Cross terms
// between images vanish. One backward pass, as with one sampled label per image, but every class of every image speaks:
// a confident network seldom draws a label that says anything.
[[nodiscard]] torch::Tensor FisherSketch(const torch::jit::Module& module, const Dataset& data,
                                         const torch::Tensor& rows, const Normalizer& normalizer, RandomStream& stream);

}  // namespace bitplan
