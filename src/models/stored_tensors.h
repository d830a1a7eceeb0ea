// Every tensor that a module or its graph holds, and which of them an operand is.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace bitplan {

// Where a tensor of the network is kept: it decides whether a plan can put another one there.
enum class TensorHome { kParameter, kBuffer, kInside, kConstant };  // kInside: of a list, tuple, dictionary or object

struct StoredTensor {
  std::string path;  // the first of several attributes that share the tensor
  torch::Tensor value;
  TensorHome home = TensorHome::kParameter;
  std::string inside = {};  // the list, or the like, that holds the same tensor
};

class StoredTensors {
 public:
  // Parameters, then buffers, what lists and the like hold, constants of the graph; each of several that share their
  // numbers once. Tensors without numbers are left out.
  StoredTensors(const torch::jit::Module& module, const torch::jit::Graph& graph);

  [[nodiscard]] std::size_t size() const { return tensors_.size(); }
  [[nodiscard]] const StoredTensor& operator[](std::size_t index) const { return tensors_[index]; }

  // The tensor that this one is; otherwise the smallest one that it is a view into.
  [[nodiscard]] std::optional<std::size_t> Find(const torch::Tensor& tensor) const;

 private:
  void Add(const std::string& path, const torch::Tensor& value, TensorHome home);

  std::vector<StoredTensor> tensors_;
  int constants_ = 0;
  std::unordered_map<const void*, std::vector<std::size_t>> by_storage_;
};

// Every tensor in a value, with its place in it: "ws[0]".
void ForEachTensor(const c10::IValue& value, const std::string& path,
                   const std::function<void(const std::string&, const torch::Tensor&)>& visit);

// Whether both are views of one tensor.
[[nodiscard]] bool ShareStorage(const torch::Tensor& a, const torch::Tensor& b);

}  // namespace bitplan
