// Sees the tensors that layers read while the network runs, each once, so that gradients with respect to them can be
// had.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "bitplan/models/network.h"
#include "bitplan/models/tap.h"

namespace bitplan {

// Forward passes of network.module are seen while it lives. `network` and `tensors` must outlive it.
class ReadWatch {
 public:
  struct Read {
    std::size_t tensor;    // its first reader
    torch::Tensor values;  // with its graph, where gradients are recorded
  };

  // `tensors`: of every layer the first one that reads the same tensor. `on_input` sees what every layer reads that
  // rounds its input, shared or not. Layers without a place in the graph (LayersRead) are passed over.
  ReadWatch(const Network& network, const std::vector<std::size_t>& tensors,
            std::function<void(std::size_t layer, const torch::Tensor& input)> on_input = {});
  ~ReadWatch() { Forget(); }
  ReadWatch(const ReadWatch&) = delete;
  ReadWatch& operator=(const ReadWatch&) = delete;

  // What was read since the last call. Images, and tensors of the model, record gradients until Forget is called.
  [[nodiscard]] std::vector<Read> Take();
  void Forget();

 private:
  [[nodiscard]] TapHandlers Handlers();

  const Network& network_;
  const std::vector<std::size_t>& tensors_;
  std::vector<bool> has_place_;  // of every layer
  std::vector<Read> reads_;
  std::function<void(std::size_t layer, const torch::Tensor& input)> on_input_;
  std::vector<torch::Tensor> flagged_;  // leaves that record gradients for this minibatch alone
  Tap tap_;
};

}  // namespace bitplan
