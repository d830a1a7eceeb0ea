// The state of a training run after an epoch, in one file.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/optim/optimizer.h>

#include <filesystem>
#include <string>
#include <vector>

#include "bitplan/core/progress.h"

namespace bitplan {

class Checkpoint {
 public:
  // An empty `file` keeps nothing. `input_hash` names the run that the file belongs to.
  Checkpoint(std::filesystem::path file, std::string input_hash);

  // After as many epochs as `epoch_loss` has entries; atomic.
  void Save(const torch::jit::Module& module, const torch::optim::Optimizer& optimizer,
            const std::vector<double>& epoch_loss) const;
  // Puts the state of an earlier run back and returns its epoch losses; none when there is no usable file of this run
  // (module and optimizer are then untouched).
  [[nodiscard]] std::vector<double> Load(torch::jit::Module& module, torch::optim::Optimizer& optimizer,
                                         ProgressSink& progress) const;
  void Remove() const;

 private:
  std::filesystem::path file_;
  std::string input_hash_;
};

}  // namespace bitplan
