// What the weights of a layer are multiplied with: the inputs of single output values.
//
// An output value of one image (a position: image, row and column of a convolution; a row of a linear layer) is the
// product of an output channel's n weights with n inputs. The columns of an im2col matrix, gathered only where wanted.
// Of a transposed convolution too: an output sees an input through at most one place of the window, and zero through
// the places that its stride leaves out.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "bitplan/models/network.h"

namespace bitplan {

// Whether GatherInputs can serve the layer: used once and as a whole, a convolution only when its window is known, and
// no embedding: its inputs are indices, and rounding a row to its nearest levels is the best for every output. Of a
// recurrent operation the weights that meet its input; those that meet its states are not served.
[[nodiscard]] bool HasKnownInputs(const Layer& layer);

// Positions in a layer's input [N, C, ...] of a convolution, or [..., in].
[[nodiscard]] std::int64_t InputPositions(const Layer& layer, const torch::Tensor& input);

// int64 [min(count, positions)]: all of them in order when there are no more than `count`, else drawn with
// replacement, ascending: what lies side by side is read side by side.
[[nodiscard]] torch::Tensor DrawPositions(std::int64_t positions, std::int64_t count, at::Generator& generator);

// float32 [groups, positions, n], n in the order of an output channel's weights.
[[nodiscard]] torch::Tensor GatherInputs(const Layer& layer, const torch::Tensor& input,
                                         const torch::Tensor& positions);

// Values at the same positions of a tensor that has the shape of the layer's output: float32 [positions, channels].
[[nodiscard]] torch::Tensor GatherOutputs(const Layer& layer, const torch::Tensor& output,
                                          const torch::Tensor& positions);

// Inputs of every layer in the float network at about `count` positions spread over all images; undefined for a layer
// without known inputs. `images`: float32 normalized [N, C, H, W].
[[nodiscard]] std::vector<torch::Tensor> SampleLayerInputs(const Network& network, const torch::Tensor& images,
                                                           std::int64_t count, std::uint64_t seed);

}  // namespace bitplan
