// Images for which a network gives no numbers are refused by name, and classes that a network rules out count nothing.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <functional>
#include <string>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"

namespace bitplan {

// bool [n]: the rows of logits [n, classes] that a softmax turns into probabilities: no NaN, no +inf, and not -inf
// throughout. A class with the logit -inf has probability zero: that is how classes are masked.
[[nodiscard]] torch::Tensor HaveProbabilities(const torch::Tensor& logits);

// KL(p || q) of every row in nats, from log-probabilities [n, classes]. Where p is zero a class counts nothing,
// whatever q says of it.
[[nodiscard]] torch::Tensor RowDivergences(const torch::Tensor& log_p, const torch::Tensor& log_q);

// The mean of non-negative values whose rounding errors may lie below zero; NaN stays NaN.
[[nodiscard]] double MeanNotNegative(const torch::Tensor& values);

[[nodiscard]] bool AreFinite(const std::vector<torch::Tensor>& tensors);

// Error(kData) "WHAT of image 40 of npy/train is not finite; ..." and what helps. `image`: its name.
[[nodiscard]] Error NotFinite(const std::string& what, const std::string& image);

// Error(kData) "WHAT of image 40 of npy/train is not finite". `is_sound` tries one row (int64 [1]) of `data` alone; the
// first of `rows` (int64 [n]) that fails is named, or all of them when none fails alone.
[[noreturn]] void RefuseImage(const Dataset& data, const torch::Tensor& rows, const std::string& what,
                              const std::function<bool(const torch::Tensor& row)>& is_sound);

// Error(kData) as above unless all `logits`, of `rows` of `data`, give probabilities. The image is looked for with
// `module`.
void RequireProbabilities(const torch::Tensor& logits, const torch::jit::Module& module, const Dataset& data,
                          const torch::Tensor& rows, const Normalizer& normalizer);

// Error as above when the labelled loss of some rows alone is not finite. Nothing when all are finite, and when of
// several none is though their pixels are: then it is the network.
void RefuseLoss(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                const Normalizer& normalizer);

// One pass: error as above unless the inputs of all layers are finite and all logits give probabilities.
void RequireFiniteActivations(const Network& network, const Dataset& data, const torch::Tensor& rows,
                              const Normalizer& normalizer);

}  // namespace bitplan
