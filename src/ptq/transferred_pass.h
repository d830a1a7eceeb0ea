// What a pass of the quantized network gave whose batch norms moved along (method `transfer`): compensated rounding
// makes such a pass, and the corrections, whose pass would be the same, take its figures.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "bitplan/models/batch_norm.h"
#include "ptq/output_fit.h"

namespace bitplan {

class TransferredPass {
 public:
  // `batch_norms`: as the pass left them [batch norms]. `layer`, `outputs`: the only layer whose outputs can be fitted,
  // and these, where no batch norm follows: behind a layer that is fitted the network is another one.
  TransferredPass(std::vector<ChannelStatistics> batch_norms, std::optional<std::size_t> layer,
                  std::optional<OutputReference::Pair> outputs)
      : batch_norms_(std::move(batch_norms)), layer_(layer), outputs_(std::move(outputs)) {}

  [[nodiscard]] const std::vector<ChannelStatistics>& batch_norms() const { return batch_norms_; }
  // Whether it holds what a fit of the outputs of `layers` asks for.
  [[nodiscard]] bool Serves(const std::vector<std::size_t>& layers) const {
    return layers.empty() || (layers.size() == 1 && outputs_ && layer_ == layers.front());
  }
  // Outputs of that layer beside those of the float network.
  [[nodiscard]] const OutputReference::Pair& outputs() const { return *outputs_; }

 private:
  std::vector<ChannelStatistics> batch_norms_;
  std::optional<std::size_t> layer_;
  std::optional<OutputReference::Pair> outputs_;
};

}  // namespace bitplan
