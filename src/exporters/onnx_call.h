// An operation of TorchScript as its translator sees it: arguments by name or position, each with the name that it has
// in the ONNX graph.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "exporters/graph_walk.h"
#include "exporters/onnx_graph.h"

namespace bitplan {

// Which tensor of the walk has which name in the ONNX graph. Constants get one when they are first asked for.
class OnnxNames {
 public:
  OnnxNames(OnnxGraph& graph, const QuantizedNetwork& network, const torch::jit::Module& module);

  void Name(const torch::Tensor& tensor, const std::string& name);
  // An output that no translation makes: an error, once something reads it.
  void Forget(const torch::Tensor& tensor, const std::string& why);
  // `tensor` has been written to: what else shares its memory can no longer be read.
  void Written(const torch::Tensor& tensor);

  // Whether it depends on the input of the network. Sizes of it do not count.
  [[nodiscard]] bool Depends(const c10::IValue& value) const;
  [[nodiscard]] bool Knows(const torch::Tensor& tensor) const;
  // Of a tensor in both walks. Error(kData) where it cannot be told how it depends on the batch.
  [[nodiscard]] std::string Of(const torch::Tensor& first, const torch::Tensor& second);

 private:
  struct Entry {
    torch::Tensor tensor;  // kept, so that its address stays its own
    std::string name;
    std::string unusable;  // why it cannot be read, or empty
  };
  struct Planned {
    torch::Tensor weight;
    std::string parameter;
    IntegerWeight integers;
  };

  [[nodiscard]] std::string ConstantOf(const torch::Tensor& tensor);
  [[nodiscard]] std::string FromBatch(const torch::Tensor& first, const torch::Tensor& second);

  OnnxGraph& graph_;
  std::unordered_map<const void*, Entry> entries_;                 // by tensor
  std::unordered_map<const void*, std::vector<Planned>> planned_;  // by storage
  std::unordered_map<const void*, std::string> paths_;             // of parameters and buffers, by tensor
  std::unordered_set<const void*> written_;                        // storages
  std::vector<std::pair<torch::Tensor, std::string>> constants_;   // those that are initializers already
};

// "relu" of aten::relu and of aten::relu_.
[[nodiscard]] std::string OperatorName(const torch::jit::Node& node);

// Position of an argument, or its name in the signature of the operator.
struct Argument {
  Argument(int index) : position(index) {}    // NOLINT(google-explicit-constructor)
  Argument(const char* text) : name(text) {}  // NOLINT(google-explicit-constructor)
  int position = -1;
  std::string_view name;
};

class OnnxCall {
 public:
  OnnxCall(OnnxGraph& graph, OnnxNames& names, const WalkedOperation& operation)
      : graph_(graph), names_(names), operation_(operation) {}

  [[nodiscard]] OnnxGraph& graph() const { return graph_; }
  [[nodiscard]] bool Has(Argument argument) const;  // there, and not None
  // Error(kData) for what depends on the batch.
  [[nodiscard]] std::int64_t Int(Argument argument) const;
  [[nodiscard]] std::int64_t Int(Argument argument, std::int64_t otherwise) const;
  [[nodiscard]] double Real(Argument argument) const;
  [[nodiscard]] double Real(Argument argument, double otherwise) const;
  [[nodiscard]] bool Flag(Argument argument, bool otherwise = false) const;
  [[nodiscard]] std::string Word(Argument argument) const;
  // A list; a single number becomes `count` of them.
  [[nodiscard]] std::vector<std::int64_t> Ints(Argument argument, std::size_t count = 1) const;

  [[nodiscard]] torch::Tensor Tensor(Argument argument) const;  // of the first walk
  [[nodiscard]] const c10::IValue& Value(Argument argument, std::size_t walk = 0) const;
  [[nodiscard]] std::int64_t Dims(Argument argument) const { return Tensor(argument).dim(); }
  [[nodiscard]] Extents SizesOf(Argument argument) const;
  // A dimension as the operator counts it, from the end where negative, counted from the start.
  [[nodiscard]] std::int64_t Dim(Argument argument, std::int64_t dims) const;

  // Names in the ONNX graph. With a type, cast where it differs; numbers become constants.
  [[nodiscard]] std::string Name(Argument argument) const;
  [[nodiscard]] std::string As(Argument argument, torch::ScalarType type) const;
  [[nodiscard]] std::vector<std::string> NamesIn(Argument list) const;  // of a list of tensors
  [[nodiscard]] std::string NameOf(const torch::Tensor& constant) const { return names_.Of(constant, constant); }
  [[nodiscard]] std::string NameInList(Argument list, std::size_t index) const;
  // Whether an argument depends on the input of the network.
  [[nodiscard]] bool Depends(Argument argument) const { return names_.Depends(Value(argument)); }

  [[nodiscard]] torch::Tensor Out(std::size_t index = 0) const;  // of the first walk; lists and tuples laid out
  [[nodiscard]] std::size_t Outs() const;
  [[nodiscard]] Extents OutSizes(std::size_t index = 0) const;
  // "conv2d"; also for the form that writes into its operand, "relu_".
  [[nodiscard]] std::string Operator() const { return OperatorName(operation_.node); }
  // Error(kData) that names operator and place.
  [[noreturn]] void Refuse(const std::string& why) const;

 private:
  [[nodiscard]] int Find(Argument argument) const;
  [[nodiscard]] const c10::IValue& Same(Argument argument) const;

  OnnxGraph& graph_;
  OnnxNames& names_;
  const WalkedOperation& operation_;
};

// All tensors in these values, one after another.
[[nodiscard]] std::vector<torch::Tensor> TensorsIn(const std::vector<c10::IValue>& values);

// Names of the outputs, in their order; fewer where the rest is not needed.
using OnnxTranslator = std::vector<std::string> (*)(const OnnxCall& call);
using OnnxTranslators = std::map<std::string, OnnxTranslator>;  // by name of the operator, without "aten::"

}  // namespace bitplan
