// What a Bayesian network is unsure of, and why.
//
// With p_t the class probabilities of one draw of the weights and p = E_t p_t the predictive distribution,
//   total      H[p]            what the prediction leaves open
//   aleatoric  E_t H[p_t]      open although the weights are known: the input itself is ambiguous
//   epistemic  total - aleatoric = I(class; weights) >= 0: the draws disagree, the network has not seen such inputs
// (Depeweg et al. 2018). All in nats.
#pragma once

#include <torch/types.h>

namespace bitplan {

struct Uncertainty {
  torch::Tensor predictive;  // float32 [n, classes], E_t p_t
  torch::Tensor total;       // float64 [n], nats
  torch::Tensor aleatoric;   // float64 [n]
  torch::Tensor epistemic;   // float64 [n], >= 0
};

// Adds the draws up one at a time, so that T draws of a large data set need not be held at once.
class UncertaintySum {
 public:
  // `logits`: float32 [n, classes] of one draw of the weights for all n inputs.
  void Add(const torch::Tensor& logits);
  [[nodiscard]] std::int64_t draws() const { return draws_; }
  // Error(kInternal) before the first draw.
  [[nodiscard]] Uncertainty Take() const;

 private:
  torch::Tensor probabilities_, entropy_;  // sums over the draws, float64
  std::int64_t draws_ = 0;
};

}  // namespace bitplan
