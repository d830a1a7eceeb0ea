// Residual connections: where what a layer puts out is added to what another way through the network brought.
#pragma once

#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "bitplan/models/network.h"
#include "bitplan/models/tap.h"

namespace bitplan {

// Which operation of a forward pass a tensor comes from.
struct TensorSource {
  enum class Kind { kLayer, kBatchNorm, kBetween };
  Kind kind = Kind::kLayer;
  std::size_t index = 0;  // of the layer, of the batch norm, or the ordinal of the operation between them

  bool operator==(const TensorSource&) const = default;
};

struct Join {
  std::optional<std::size_t> batch_norm;  // through which the layer's output passes before it is added
  TensorSource other;                     // what it is added to: there before the layer runs
};

// Of every layer whether its output, as it is or through a batch norm, is a term of a sum whose other term is there
// before the layer runs. Of two ways that meet only the one that ends last can look at the other. A layer used twice or
// added twice has none. Finds out by one pass: [layers].
[[nodiscard]] std::vector<std::optional<Join>> FindJoins(const Network& network);

// Lets a tap catch the other terms of joins: `on_other` gets them when they are there, before the layer runs.
void WatchJoins(const std::vector<std::optional<Join>>& joins, TapHandlers& handlers,
                std::function<void(std::size_t layer, const torch::Tensor& other)> on_other);

}  // namespace bitplan
