// One forward pass whose operations are looked at: which tensors of a model are layers, and why the others are not.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>

#include <functional>
#include <set>
#include <string>

#include "bitplan/models/network.h"

namespace bitplan {

inline constexpr const char* kNotUsed = "not used by forward";  // FloatParameter::reason

// Runs `pass`, a forward pass of `module`, whose code in one piece is `graph`: its layers, batch norms and everything
// that stays in float; a name and what is known of the input are the caller's. `written` gets the buffers that an
// operation writes to. What the pass throws is its own affair; Error(kData) when one operation hides layers.
[[nodiscard]] Network RecordPass(const torch::jit::Module& module, const torch::jit::Graph& graph,
                                 std::set<std::string>& written, const std::function<void()>& pass);

}  // namespace bitplan
