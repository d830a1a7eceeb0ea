// A network whose layers read tensors that can be rounded to other levels at any time.
//
// The graph of a clone gets a branch behind every tensor that layers read: as it is, or through
// aten::fake_quantize_per_tensor_affine. Which of both, and to which levels, stands in attributes of the module, so
// that another width takes no other graph. Everything behind the branch reads what comes out of it, sums behind a
// residual connection too, as in the network that QuantizeActivations makes (bitplan/ptq/activations.h).
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "bitplan/models/network.h"
#include "bitplan/quantizers/affine_quantizer.h"

namespace bitplan {

class RoundedReads {
 public:
  // Nothing is rounded until Set asks for it. The input of a layer without a place in the graph cannot be
  // (FindLayerReads).
  explicit RoundedReads(const Network& network);

  // The clone; its weights are its own.
  [[nodiscard]] const torch::jit::Module& module() const { return module_; }
  // Of every layer the first one that reads the same tensor (SharedInputs).
  [[nodiscard]] const std::vector<std::size_t>& tensors() const { return tensors_; }
  // Whether a tensor, named by its first reader, is there to be rounded.
  [[nodiscard]] bool rounds(std::size_t tensor) const { return rounds_[tensor]; }
  // `tensor`: its first reader; a quantizer that does not round leaves the tensor as it is.
  void Set(std::size_t tensor, const AffineQuantizer& quantizer);
  // Runs a pass of the module and names every tensor whose branch rounds in it, when that happens. For the pass every
  // tensor is rounded to levels that mean nothing; nothing is rounded afterwards.
  void Locate(const std::function<void()>& pass, const std::function<void(std::size_t tensor)>& visit);

 private:
  torch::jit::Module module_;
  std::vector<std::size_t> tensors_;
  std::vector<bool> rounds_;
};

}  // namespace bitplan
