// Estimates of the gradient of the expected data loss with respect to the logits of random widths. Private to
// random-bits.
//
// b_u ~ Categorical(p_u), p_u = softmax(theta_u), independently for every unit. Wanted is d/d theta E_b[loss(b)], from
// one minibatch of the oracle. Rows that fall apart into units have it in closed form (AddExpectationGradient); the
// data loss does not, and two estimators stand to choose from.
//
// score-function. For S plans b^1 .. b^S of the minibatch (Williams 1992, baseline by leaving one out: Kool et al.
// 2019)
//   1/(S-1) sum_s (f_s - mean f) * (1{b_u^s = k} - p_uk).
// Unbiased. Its variance falls with what can be predicted: with D(b) = sum_u D_u(b_u), the table, as a control variate,
// f = loss - alpha * D, and alpha * d/d theta E[D] added in closed form, only the part of the loss that the table does
// not explain is left to chance. alpha is the regression of loss on D within the minibatches seen before this one, so
// that the estimate stays unbiased.
//
// gumbel-softmax (Jang et al. 2017, Maddison et al. 2017). One relaxed plan m_u = softmax((theta_u + g_u) / t), g
// Gumbel noise, t the temperature, through which the gradient of the loss flows: one forward and one backward pass say
// something about every unit and width. Biased at t > 0, the more so since errors of two widths partly cancel in a
// mixture. The table is a control variate here too: its slope along the mixture goes out, its expectation comes in by
// the closed form.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bitplan/core/likelihood_oracle.h"
#include "bitplan/core/options.h"
#include "bitplan/core/random.h"

namespace bitplan::random_bits {

using Table = std::vector<std::vector<double>>;  // [units][widths]

// Softmax of every row.
[[nodiscard]] Table Probabilities(const Table& logits);

// sum_u <p_u, values_u>.
[[nodiscard]] double Expectation(const Table& probabilities, const Table& values);

// gradient += weight * d/d theta sum_u <p_u, values_u>.
void AddExpectationGradient(const Table& probabilities, const Table& values, double weight, Table& gradient);

class DataEstimator {
 public:
  virtual ~DataEstimator() = default;
  // Moves to the next minibatch and adds weight * the estimate to the gradient. Returns the mean loss of what was
  // drawn.
  virtual double AddGradient(const Table& logits, const Table& probabilities, double temperature, double weight,
                             Table& gradient) = 0;
};

// By options.estimator; Error(kUsage) for an unknown one. `rises`: the table D.
[[nodiscard]] std::unique_ptr<DataEstimator> MakeDataEstimator(const RandomBitsOptions& options,
                                                               LikelihoodOracle& oracle, const Table& rises,
                                                               RandomStream stream);

}  // namespace bitplan::random_bits
