// Watches the layers and batch norms of a network while it runs, whatever its forward looks like: LibTorch's operator
// observers report every operation with its inputs, and the ones that use a known weight are handed on. Nested
// operations inside a reported one are not reported again, nor are those of a backward pass or of a handler itself. One
// tap per thread; the tap ends with its lifetime, and the tensors watched must not be replaced (SetTensor) during it.
// What a handler throws leaves through the tap's destructor, because LibTorch's observers cannot throw.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/types.h>

#include <functional>
#include <memory>

#include "bitplan/models/network.h"

namespace bitplan {

struct TapHandlers {
  // Before layer `index` runs: its input [n, C, H, W] or [n, ..., in]; for all weights of a recurrent operation the
  // input of the operation.
  std::function<void(std::size_t index, const torch::Tensor& input)> on_layer_input{};
  // After it ran: its output. A recurrent operation has several, outputs of all steps and last states, each of which is
  // handed on for each of its weights.
  std::function<void(std::size_t index, const torch::Tensor& output)> on_layer_output{};
  // Before batch norm `index` runs in evaluation mode: its input [n, C, ...]. Writing the running buffers in place here
  // changes what this very call uses.
  std::function<void(std::size_t index, const torch::Tensor& input)> on_batch_norm_input{};
  // After it ran; `eps` is what it adds to the variance.
  std::function<void(std::size_t index, const torch::Tensor& input, const torch::Tensor& output, double eps)>
      on_batch_norm_output{};
  // After an operation between layers (activation, pooling, padding, sum) ran: its output. `ordinal` counts these
  // operations while the tap lives, so that it means the same operation in every first pass.
  std::function<void(std::size_t ordinal, const torch::Tensor& output)> on_between{};
  // Before one of them that is a plain sum of two tensors: the terms.
  std::function<void(const torch::Tensor& left, const torch::Tensor& right)> on_sum{};
};

class Tap {
 public:
  // `module` must be `network.module` or a clone of it: names are looked up in it.
  Tap(const Network& network, const torch::jit::Module& module, TapHandlers handlers);
  ~Tap() noexcept(false);
  Tap(const Tap&) = delete;
  Tap& operator=(const Tap&) = delete;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bitplan
