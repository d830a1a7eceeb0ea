#include "training/optimizer.h"

#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <utility>

#include "bitplan/core/error.h"
#include "bitplan/core/suggest.h"

namespace bitplan {

std::unique_ptr<torch::optim::Optimizer> MakeOptimizer(const TrainOptions& options,
                                                       std::vector<torch::Tensor> parameters) {
  if (options.optimizer == "adam") {
    return std::make_unique<torch::optim::AdamW>(
        std::move(parameters), torch::optim::AdamWOptions(options.learning_rate).weight_decay(options.weight_decay));
  }
  if (options.optimizer == "sgd") {
    return std::make_unique<torch::optim::SGD>(std::move(parameters), torch::optim::SGDOptions(options.learning_rate)
                                                                          .momentum(0.9)
                                                                          .nesterov(true)
                                                                          .weight_decay(options.weight_decay));
  }
  throw Error(ErrorKind::kUsage, UnknownNameMessage("optimizer", options.optimizer, {"adam", "sgd"}));
}

void SetLearningRate(torch::optim::Optimizer& optimizer, double rate) {
  for (auto& group : optimizer.param_groups()) group.options().set_lr(rate);
}

}  // namespace bitplan
