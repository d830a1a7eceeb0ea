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
#include "likelihoods/categorical.h"

namespace bitplan {

// The mean of non-negative values whose rounding errors may lie below zero; NaN stays NaN.
[[nodiscard]] double MeanNotNegative(const torch::Tensor& values);

[[nodiscard]] bool AreFinite(const std::vector<torch::Tensor>& tensors);

// Error(kData) "WHAT of image 40 of npy/train is not finite; ..." and what helps. `image`: its name.
[[nodiscard]] Error NotFinite(const std::string& what, const std::string& image);

// Error(kData) "WHAT of image 40 of npy/train is not finite". `is_sound` tries one row (int64 [1]) of `data` alone; the
// first of `rows` (int64 [n]) that fails is named, or all of them when none fails alone.
[[noreturn]] void RefuseImage(const Dataset& data, const torch::Tensor& rows, const std::string& what,
                              const std::function<bool(const torch::Tensor& row)>& is_sound);

// Error(kData) as above unless all `outputs`, of `rows` of `data`, are sound (Likelihood::AreSound of the data's task):
// logits that give probabilities. The image is looked for with `module`.
void RequireSound(const torch::Tensor& outputs, const torch::jit::Module& module, const Dataset& data,
                  const torch::Tensor& rows, const Normalizer& normalizer);

// Error as above when the labelled loss of some rows alone is not finite. Nothing when all are finite, and when of
// several none is though their pixels are: then it is the network.
void RefuseLoss(const torch::jit::Module& module, const Dataset& data, const torch::Tensor& rows,
                const Normalizer& normalizer);

// One pass: error as above unless the inputs of all layers are finite and all outputs are sound.
void RequireFiniteActivations(const Network& network, const Dataset& data, const torch::Tensor& rows,
                              const Normalizer& normalizer);

}  // namespace bitplan
