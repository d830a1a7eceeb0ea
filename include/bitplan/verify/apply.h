// A plan becomes a network: quantized weights in, batch-norm statistics corrected.
#pragma once

#include <string>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/plan.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"
#include "bitplan/models/network.h"
#include "bitplan/posterior/posterior.h"

namespace bitplan {

// Error(kData) when the plan was made for another model: the message says which layers differ (missing, unknown, other
// shape), or that the weights differ.
void CheckPlanFits(const Plan& plan, const Network& network, const std::string& model_hash);

struct AppliedPlan {
  torch::jit::Module module{"empty"};  // a clone of the network with quantized weights
  std::vector<std::string> grids;      // of every layer, order of Network::layers
};

// Writes Q_b(w) into a clone of the network. `posterior` may be null unless the range is "posterior".
[[nodiscard]] AppliedPlan ApplyBits(const Network& network, const std::vector<int>& bits,
                                    const QuantizerOptions& options, const Posterior* posterior);

struct BatchNormCorrection {
  std::string chosen;  // off, re-estimate, transfer
  // Mean NLL of every candidate on the calibration split, nats per sample, in the order off, re-estimate, transfer;
  // empty unless "auto" chose.
  std::vector<double> calibration_nll;
};

// Corrects the batch-norm statistics of `quantized` in place from `images` (unlabelled training images, float32
// normalized [n, C, H, W]) as options.batch_norm says. "auto" takes the candidate with the least NLL on `calibration`,
// so it is never worse than "off" there. Networks without batch norm: chosen = off.
BatchNormCorrection CorrectBatchNorm(const Network& network, torch::jit::Module& quantized,
                                     const QuantizerOptions& options, const torch::Tensor& images,
                                     const Dataset& calibration, const Normalizer& normalizer, ProgressSink& progress);

}  // namespace bitplan
