// The TorchScript graph of an ONNX model while it grows. Every operation is appended to the graph and at once carried
// out on zeros, for batches of several sizes: so the shape and the type of every value are known, what is the same for
// all batches is a constant, and what is not stays an operation.
#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/architectures/blocks.h"
#include "models/importers/attribute_paths.h"

namespace bitplan::onnx_import {

// Why a node cannot be translated; the caller knows which node it is.
class Refusal : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The same, and the reason is that the file was made for batches of one size.
class FixedBatchRefusal : public Refusal {
 public:
  using Refusal::Refusal;
};

using Sizes = std::vector<std::int64_t>;

// One of the passes that the network is built with: all sizes of its input.
struct Walk {
  Sizes input;
  [[nodiscard]] std::int64_t batch() const { return input.front(); }
};

// What a value depends on.
enum class Source { kConstant, kShape, kData };  // the file alone, the shape of the input, its numbers

struct TracedValue {
  std::string name;
  Source source = Source::kConstant;
  torch::jit::Value* value = nullptr;                // none yet for a constant that nothing of the graph needs
  std::vector<torch::Tensor> walks;                  // one for each walk
  bool parameter = false;                            // of a constant: a weight, and not a table or a mask
  std::shared_ptr<TracedValue> turned_of = nullptr;  // of a constant: the matrix that it is the turned view of

  [[nodiscard]] const torch::Tensor& tensor() const { return walks.front(); }
  [[nodiscard]] std::int64_t rank() const { return tensor().dim(); }
  [[nodiscard]] bool constant() const { return source == Source::kConstant; }
};
using OnnxValue = std::shared_ptr<TracedValue>;

// A whole number in the graph, such as a size.
struct Number {
  Number(std::int64_t constant) : walks{constant} {}  // NOLINT(google-explicit-constructor): sizes are mostly constants
  Number(torch::jit::Value* in_graph, Sizes in_walks) : value(in_graph), walks(std::move(in_walks)) {}

  torch::jit::Value* value = nullptr;  // none for a constant
  Sizes walks;                         // one for each walk; one alone for a constant

  [[nodiscard]] bool constant() const { return value == nullptr; }
  [[nodiscard]] std::int64_t at(std::size_t walk) const { return constant() ? walks.front() : walks[walk]; }
};
using Numbers = std::vector<Number>;

// An operand of an operation of LibTorch.
struct Argument {
  // NOLINTBEGIN(google-explicit-constructor): calls read like those in Python
  Argument(OnnxValue value) : held(std::move(value)) {}
  Argument(std::vector<OnnxValue> values) : held(std::move(values)) {}
  Argument(Number number) : held(std::move(number)) {}
  Argument(Numbers numbers) : held(std::move(numbers)) {}
  Argument(c10::IValue constant) : held(std::move(constant)) {}
  Argument(std::int64_t constant) : held(c10::IValue(constant)) {}
  Argument(int constant) : held(c10::IValue(std::int64_t{constant})) {}
  Argument(bool constant) : held(c10::IValue(constant)) {}
  Argument(double constant) : held(c10::IValue(constant)) {}
  Argument(torch::ScalarType type) : held(c10::IValue(static_cast<std::int64_t>(type))) {}
  Argument(const char* constant) : held(c10::IValue(std::string(constant))) {}
  Argument(std::nullopt_t) : held(c10::IValue()) {}  // None
  // NOLINTEND(google-explicit-constructor)
  std::variant<OnnxValue, std::vector<OnnxValue>, Number, Numbers, c10::IValue> held;
};
using Arguments = std::vector<Argument>;
using Keywords = std::vector<std::pair<const char*, c10::IValue>>;  // of constants

class OnnxBuilder {
 public:
  // `fixed_batch`: the size that the file gives its batches, which is that of the first walk; 0 when it leaves it open.
  OnnxBuilder(std::vector<Walk> walks, torch::ScalarType type, std::int64_t fixed_batch);

  [[nodiscard]] const OnnxValue& input() const { return input_; }
  [[nodiscard]] std::int64_t fixed_batch() const { return fixed_batch_; }
  [[nodiscard]] std::size_t walks() const { return walks_.size(); }

  [[nodiscard]] OnnxValue Constant(const torch::Tensor& value, const std::string& name);

  // Appends aten::`operation`. Refusal when LibTorch refuses, or a result would be larger than any network needs.
  [[nodiscard]] OnnxValue Run(const char* operation, const Arguments& arguments, const Keywords& keywords = {});
  [[nodiscard]] std::vector<OnnxValue> RunMany(const char* operation, const Arguments& arguments,
                                               const Keywords& keywords = {});

  // The matrix turned. A constant stays one; in the graph it is a view, so that a weight keeps its attribute.
  [[nodiscard]] OnnxValue Turned(const OnnxValue& matrix);

  // The sizes of a value, and the whole numbers that it holds. Refusal when they depend on the numbers of activations.
  [[nodiscard]] Numbers SizesOf(const OnnxValue& value);
  [[nodiscard]] Numbers NumbersIn(const OnnxValue& value);
  [[nodiscard]] Number Batch(std::int64_t times);
  // Which dimension of a value counts images, or a multiple of them; -1 when none does, or several.
  [[nodiscard]] std::int64_t BatchDim(const OnnxValue& value) const;

  // Refusal for a value of more numbers than any network needs.
  void CheckSize(const Numbers& sizes) const;

  // The module, whose forward returns this value.
  [[nodiscard]] torch::jit::Module Finish(const OnnxValue& output);

 private:
  struct Operand {
    torch::jit::Value* value;
    std::vector<c10::IValue> walks;
  };

  std::vector<Operand> Append(torch::jit::Graph& graph, const char* operation, const std::vector<Operand>& operands,
                              const Keywords& keywords, std::size_t walks);
  std::vector<OnnxValue> Fold(const char* operation, const Arguments& arguments, const Keywords& keywords);
  Operand OperandOf(const Argument& argument, Source source);
  Operand ListOf(const std::vector<Operand>& items, const c10::TypePtr& type);
  torch::jit::Value* ValueOf(const OnnxValue& value, Source user);
  torch::jit::Value* Attribute(const std::string& path, const torch::Tensor& value, bool parameter);
  Number NumberOf(Sizes walks, const std::function<torch::jit::Value*()>& otherwise);

  std::vector<Walk> walks_;
  std::int64_t fixed_batch_;
  ModuleMaker make_;
  torch::jit::Module module_;
  std::map<std::string, torch::jit::Module> modules_;
  std::map<std::string, torch::jit::Value*> owners_;
  AttributePaths paths_;
  std::shared_ptr<torch::jit::Graph> graph_ = std::make_shared<torch::jit::Graph>();
  torch::jit::Value* self_;
  torch::jit::Value* batch_ = nullptr;
  std::map<std::int64_t, torch::jit::Value*> batches_;  // by how many times
  OnnxValue input_;
  std::int64_t made_ = 0;  // numbers, so far
};

}  // namespace bitplan::onnx_import
