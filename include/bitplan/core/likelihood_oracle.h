// The likelihood of a quantized network, for allocators that learn from data and still see no model.
//
// U units, K widths. A plan names one column (an index into widths()) per unit. The loss is the mean negative
// log-likelihood of one minibatch, in nats per sample, so that it compares with AllocationProblem::loss_rise.
//
// Both estimators evaluate the current minibatch and leave it in place; NextBatch() moves on. Samples that are compared
// with one another so see the same data, and what the minibatch adds to all of them cancels.
//
// A unit may also be left in float: column kFloatColumn, or an empty row of the mixture.
//
// `sensitivity` implements it with a network; tests with functions whose optimum is known.
#pragma once

#include <string>
#include <vector>

namespace bitplan {

inline constexpr int kFloatColumn = -1;

class LikelihoodOracle {
 public:
  virtual ~LikelihoodOracle() = default;

  // Names of the U units, as AllocationProblem::units names them and in that order.
  [[nodiscard]] virtual const std::vector<std::string>& units() const = 0;
  // The K widths in bits, ascending: AllocationProblem::widths.
  [[nodiscard]] virtual const std::vector<int>& widths() const = 0;

  virtual void NextBatch() = 0;

  // Loss with unit u quantized to column columns[u]; [U]. Forward pass only.
  [[nodiscard]] virtual double Loss(const std::vector<int>& columns) = 0;

  // Loss with the weights of unit u replaced by sum_k mixture[u][k] * Q_k(w_u), Q_k the quantizer of column k, and its
  // gradient: gradient[u][k] = d loss / d mixture[u][k] = <d loss / d w_u, Q_k(w_u)>, nats per sample. Both [U][K] (an
  // empty row of the mixture gives an empty row). Every row of the mixture is >= 0 and sums to 1. One forward and one
  // backward pass.
  [[nodiscard]] virtual double LossAndGradient(const std::vector<std::vector<double>>& mixture,
                                               std::vector<std::vector<double>>& gradient) = 0;
};

}  // namespace bitplan
