// What a Bayesian network is unsure of, and why.
//
// With p_t the class probabilities of one draw of the weights and p = E_t p_t the predictive distribution,
//   total      H[p]            what the prediction leaves open
//   aleatoric  E_t H[p_t]      open although the weights are known: the input itself is ambiguous
//   epistemic  total - aleatoric = I(class; weights) >= 0: the draws disagree, the network has not seen such inputs
// (Depeweg et al. 2018). All in nats.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace bitplan {

struct Uncertainty {
  torch::Tensor predictive;  // float32 [n, classes], E_t p_t
  torch::Tensor total;       // float64 [n], nats
  torch::Tensor aleatoric;   // float64 [n]
  torch::Tensor epistemic;   // float64 [n], >= 0
  // Means over the images with one block of the draws left out (draw t is in block t mod 10; fewer blocks where there
  // are fewer draws), for the jackknife. Empty for one draw.
  std::vector<double> aleatoric_without, epistemic_without;
};

// The relative change of a mean from one network to another that met the same draws, after / before - 1, and its
// standard error by the jackknife over blocks of draws (Quenouille 1956; Tukey 1958). `*_without`: the means with a
// block left out.
struct RelativeChange {
  double value = 0.0, standard_error = 0.0;
  double degrees = 0.0;  // of freedom of that error: blocks - 1
};
[[nodiscard]] RelativeChange CompareMeans(double before, double after, const std::vector<double>& before_without,
                                          const std::vector<double>& after_without);

// So many inputs in a row meet the same draws (Drawer, predict.h); others meet draws of their own.
inline constexpr std::int64_t kInputsPerDraw = 128;

// sum(numerator) / sum(denominator) over chosen inputs, and its standard error by the jackknife over blocks of
// kInputsPerDraw inputs in their order, delete one. Blocks differ in their inputs and in their draws, so the error
// holds both.
struct BlockRatio {
  double value = 0.0, standard_error = 0.0;
  std::int64_t blocks = 0;  // with a chosen input; fewer than two: no error is known
};
// `numerator`, `denominator`: float64 [inputs], the sum of the second over the chosen ones not 0; `chosen`: bool
// [inputs], one at least.
[[nodiscard]] BlockRatio RatioOverBlocks(const torch::Tensor& numerator, const torch::Tensor& denominator,
                                         const torch::Tensor& chosen);

// The relative change of a mean over some inputs, after / before - 1, and an upper bound of its size: 95 %, one-sided,
// by RatioOverBlocks and Student's t.
struct BoundedChange {
  double value = 0.0;
  double at_most = 0.0;  // of |value|; infinite for fewer than two blocks, or a mean of zero before
};
// `before`, `after`: float [inputs], of two networks that met the same draws; `chosen`: bool [inputs].
[[nodiscard]] BoundedChange ChangeOf(const torch::Tensor& before, const torch::Tensor& after,
                                     const torch::Tensor& chosen);

// Adds the draws up one at a time, so that T draws of a large data set need not be held at once; memory for at most
// ten.
class UncertaintySum {
 public:
  // `logits`: float32 [n, classes], of every input under its next draw.
  void Add(const torch::Tensor& logits);
  [[nodiscard]] std::int64_t draws() const { return draws_; }
  // Error(kInternal) before the first draw.
  [[nodiscard]] Uncertainty Take() const;

 private:
  struct Block {
    torch::Tensor probabilities, entropy;  // sums over its draws, float64
    std::int64_t draws = 0;
  };
  std::vector<Block> blocks_;
  std::int64_t draws_ = 0;
};

}  // namespace bitplan
