// Measures a network on labelled images.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/likelihoods/likelihood.h"

namespace bitplan {

// Logits of all images: float32 [N, classes]. Error(kData) that names the image when an output is NaN or +inf, or -inf
// throughout; -inf alone is a class that the network rules out.
[[nodiscard]] torch::Tensor PredictLogits(const torch::jit::Module& module, const Dataset& data,
                                          const Normalizer& normalizer, int batch, const std::string& label,
                                          ProgressSink& progress);

// What the task of the data measures, `batch` images at a time. Error(kData) when the outputs are not those of the
// task, or are no numbers for an image, which is named.
[[nodiscard]] Evaluation Evaluate(const torch::jit::Module& module, const Dataset& data, const Normalizer& normalizer,
                                  int batch, const std::string& label, ProgressSink& progress);

// All networks on the same samples. `float_corrected`: the float network with the correction of the quantized one
// (CorrectFloat), where that is another network.
[[nodiscard]] Verification VerifyPaired(const torch::jit::Module& float_model, const torch::jit::Module& quantized,
                                        const Dataset& data, const Normalizer& normalizer, const VerifyOptions& options,
                                        std::uint64_t seed, ProgressSink& progress,
                                        const std::optional<torch::jit::Module>& float_corrected = std::nullopt);

}  // namespace bitplan
