// What all likelihoods of classes share.
#pragma once

#include <torch/types.h>

#include "bitplan/core/random.h"

namespace bitplan {

// bool [n]: the rows of logits [n, classes] that a softmax turns into probabilities: no NaN, no +inf, and not -inf
// throughout. A class with the logit -inf has probability zero: that is how classes are masked.
[[nodiscard]] torch::Tensor HaveProbabilities(const torch::Tensor& logits);

// KL(p || q) of every row in nats, from log-probabilities [n, classes]. Where p is zero a class counts nothing,
// whatever q says of it.
[[nodiscard]] torch::Tensor RowDivergences(const torch::Tensor& log_p, const torch::Tensor& log_q);

// L xi of rows of logits [n, classes], L L' = diag(p) - p p', xi random signs: L = diag(sqrt p) - p sqrt(p)'.
[[nodiscard]] torch::Tensor RowSketches(const torch::Tensor& logits, RandomStream& stream);

// Independent +1 and -1 with equal probability: float32, shape of `like`.
[[nodiscard]] torch::Tensor RandomSigns(const torch::Tensor& like, RandomStream& stream);

}  // namespace bitplan
