// What a model must be to get a plan, and what is said to one that is not.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bitplan/core/error.h"
#include "bitplan/models/network.h"

namespace bitplan {

// [1, 28, 28]
[[nodiscard]] std::string BracketedShape(c10::IntArrayRef shape);

// forward() of `count` zero inputs in evaluation mode.
c10::IValue RunZeros(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape, std::int64_t count,
                     torch::ScalarType type = torch::kFloat);
// Whether it answers `count` inputs with as many rows.
[[nodiscard]] bool TakesBatch(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape,
                              std::int64_t count, torch::ScalarType type = torch::kFloat);
// Whether a model that does not take floats of this shape takes integers, as an embedding does.
[[nodiscard]] bool TakesIntegers(torch::jit::Module& module, const std::vector<std::int64_t>& input_shape);

// Error(kData): the weights of `graph` are packed integers.
void CheckNotQuantized(const torch::jit::Graph& graph, const std::string& name);
// Error(kData): `output`, of one input, is no tensor of logits [1, classes].
void CheckOutput(const c10::IValue& output, const std::string& name);
// Error(kData): no operation multiplies by a tensor that a plan could replace.
void CheckHasLayers(const Network& network);
// Error(kData): squares of weights, times squares of inputs, would leave float32, or the statistics of a batch norm are
// no numbers.
void CheckMagnitudes(const Network& network);

// For a model that takes batches of `count` images only.
[[nodiscard]] Error OneBatchOnly(const std::string& name, std::int64_t count);
// Why a model does not take a single input: made for batches of another size, or for inputs of another shape. `reason`:
// what LibTorch says.
[[nodiscard]] Error NoSingleInput(torch::jit::Module& module, const std::string& name,
                                  const std::vector<std::int64_t>& input_shape, const std::string& reason);

}  // namespace bitplan
