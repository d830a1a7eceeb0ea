// Optimizers by the names that recipes use.
#pragma once

#include <torch/optim/optimizer.h>

#include <memory>
#include <vector>

#include "bitplan/core/options.h"

namespace bitplan {

// adam: AdamW, decay decoupled from the moments; sgd: Nesterov momentum 0.9. Error(kUsage) for another name.
[[nodiscard]] std::unique_ptr<torch::optim::Optimizer> MakeOptimizer(const TrainOptions& options,
                                                                     std::vector<torch::Tensor> parameters);

void SetLearningRate(torch::optim::Optimizer& optimizer, double rate);

}  // namespace bitplan
