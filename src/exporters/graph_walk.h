// Runs the TorchScript of a network operation by operation, for two batches of different size at once. Calls are
// followed, branches and loops are decided, so that what is seen is a straight line of operations with their operands.
// What differs between the two runs depends on the size of the batch; everything else is the same for every batch.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <array>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

namespace bitplan {

using BothValues = std::array<c10::IValue, 2>;  // of the first and the second batch

// An operation that has just run.
struct WalkedOperation {
  const torch::jit::Node& node;
  std::array<std::vector<c10::IValue>, 2> inputs, outputs;
  std::string scope;  // attribute path of the module that it belongs to, or empty

  // "aten::conv2d in layer 'features.3' (model.py:12)".
  [[nodiscard]] std::string Place() const;
};

class GraphWalk {
 public:
  using Visit = std::function<void(const WalkedOperation&)>;

  // `module` is changed by a forward that changes its buffers. Operations that make and take apart lists, tuples and
  // the like are not reported.
  GraphWalk(const torch::jit::Module& module, Visit visit);

  // forward() of both batches. Error(kData) where they take different ways through the code, or where an operation
  // fails: it says which and where.
  [[nodiscard]] BothValues Run(const std::array<torch::Tensor, 2>& batches);

 private:
  using Values = std::unordered_map<const torch::jit::Value*, BothValues>;

  std::vector<BothValues> Call(const torch::jit::Graph& graph, std::vector<BothValues> arguments,
                               const std::string& scope);
  void RunBlock(const torch::jit::Block& block, Values& values);
  void RunNode(const torch::jit::Node& node, Values& values);
  void RunIf(const torch::jit::Node& node, Values& values);
  void RunLoop(const torch::jit::Node& node, Values& values);
  void RunCall(const torch::jit::Node& node, Values& values);
  // Lists, tuples, attributes and the like; false for anything else.
  bool RunStructure(const torch::jit::Node& node, Values& values);
  void RunOperation(const torch::jit::Node& node, Values& values);

  torch::jit::Module module_;
  Visit visit_;
  std::string scope_;
  std::unordered_map<const void*, std::string> paths_;  // of every submodule
};

}  // namespace bitplan
