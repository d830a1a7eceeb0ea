// Ranges of rounded activations that change while the network is used, as learning needs them.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <vector>

#include "bitplan/models/network.h"
#include "bitplan/ptq/apply.h"

namespace bitplan {

struct MovingRange {
  std::size_t layer = 0;      // the first one that reads the tensor
  torch::Tensor scale;        // float32 [1]: what the network rounds with now
  AffineQuantizer quantizer;  // as it was
};

// While it lives, applied.module is a clone whose quantizers read their scale from tensors.
class MovingRanges {
 public:
  MovingRanges(const Network& network, AppliedPlan& applied);
  ~MovingRanges();
  MovingRanges(const MovingRanges&) = delete;
  MovingRanges& operator=(const MovingRanges&) = delete;

  [[nodiscard]] std::vector<MovingRange>& ranges() { return ranges_; }
  // Writes the scales of now into applied.activations, and the module becomes one whose quantizers hold them as
  // numbers. Done by the destructor with the scales of before, where nobody asked for it.
  void Settle();
  void PutBack();

 private:
  const Network& network_;
  AppliedPlan& applied_;
  std::vector<MovingRange> ranges_;
  bool settled_ = false;
};

}  // namespace bitplan
