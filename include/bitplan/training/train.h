// Float training: one-cycle schedule, augmentation, decoupled streams. Every epoch draws from its own streams, so that
// a run that was killed continues from its last epoch checkpoint and ends with the same weights.
//
// The learning rate rises linearly over the first quarter of all steps to options.learning_rate and falls along half a
// cosine towards 0. The order of the images comes from stream "training/epoch/K", augmentation from
// "training/epoch/K/augment". There is no early stopping: the weights after the last epoch are the result.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "bitplan/core/options.h"
#include "bitplan/core/progress.h"
#include "bitplan/data/dataset.h"

namespace bitplan {

struct TrainReport {
  std::vector<double> epoch_loss;  // mean training loss, nats per sample
  double seconds = 0.0;
};

// Trains `module` in place by mean cross-entropy; leaves it in evaluation mode with gradients off. `checkpoint`: file
// for the state after every epoch (removed at the end), or empty for none; it is used only when it belongs to the same
// options, data and seed (`input_hash`). Error(kData) when the loss stops being finite (looked at every 50 steps; says
// the step and to lower the learning rate), or when the model has fewer outputs than the data has classes.
TrainReport Train(torch::jit::Module& module, const Dataset& train, const Normalizer& normalizer,
                  const TrainOptions& options, std::uint64_t seed, const std::filesystem::path& checkpoint,
                  const std::string& input_hash, ProgressSink& progress);

}  // namespace bitplan
