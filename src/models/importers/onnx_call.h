// A node of an ONNX graph as its translator sees it.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "models/importers/onnx_builder.h"
#include "models/importers/onnx_file.h"

namespace bitplan::onnx_import {

class OnnxCall {
 public:
  // `inputs`: null where one is left out.
  OnnxCall(OnnxBuilder& builder, const NodeField& node, std::int64_t opset, std::vector<OnnxValue> inputs,
           std::function<torch::Tensor(const TensorField&)> read)
      : builder_(builder), node_(node), opset_(opset), inputs_(std::move(inputs)), read_(std::move(read)) {}

  [[nodiscard]] OnnxBuilder& graph() const { return builder_; }
  [[nodiscard]] std::int64_t opset() const { return opset_; }
  [[nodiscard]] const NodeField& node() const { return node_; }

  [[nodiscard]] std::size_t inputs() const { return inputs_.size(); }
  [[nodiscard]] bool Has(std::size_t input) const;
  [[nodiscard]] const OnnxValue& In(std::size_t input) const;       // Refusal when it is left out
  [[nodiscard]] torch::Tensor ConstantIn(std::size_t input) const;  // Refusal when it is not the same for all batches
  [[nodiscard]] bool Wants(std::size_t output) const;               // whether the file has a name for it

  // Attributes. What nobody asks for is refused afterwards: it would change the result without a word.
  [[nodiscard]] bool HasAttribute(const std::string& name) const;
  [[nodiscard]] std::int64_t Int(const std::string& name, std::int64_t otherwise) const;
  [[nodiscard]] double Real(const std::string& name, double otherwise) const;
  [[nodiscard]] std::string Text(const std::string& name, const std::string& otherwise) const;
  [[nodiscard]] std::optional<Sizes> Ints(const std::string& name) const;
  [[nodiscard]] std::optional<std::vector<float>> Reals(const std::string& name) const;
  [[nodiscard]] std::optional<std::vector<std::string>> Texts(const std::string& name) const;
  [[nodiscard]] std::optional<torch::Tensor> TensorAttribute(const std::string& name) const;
  void Ignore(const std::string& name) const { asked_.insert(name); }
  // Refusal for an attribute that nobody asked for.
  void CheckAttributes() const;

  // Counts from the front: 0 .. rank - 1. Refusal outside.
  [[nodiscard]] std::int64_t Axis(std::int64_t axis, std::int64_t rank) const;

  // Gives constants of a layer, whose names in the file are numbers that the exporter made up, names of their own.
  void NameParts(const OnnxValue& weight, const OnnxValue& bias) const;

  // Appends aten::`operation`.
  OnnxValue Run(const char* operation, const Arguments& arguments, const Keywords& keywords = {}) const {
    return builder_.Run(operation, arguments, keywords);
  }

  [[noreturn]] void Refuse(const std::string& why) const { throw Refusal(why); }

 private:
  [[nodiscard]] const AttributeField* Find(const std::string& name) const;

  OnnxBuilder& builder_;
  const NodeField& node_;
  std::int64_t opset_;
  std::vector<OnnxValue> inputs_;
  std::function<torch::Tensor(const TensorField&)> read_;
  mutable std::set<std::string> asked_;
};

// The outputs of a node.
using OnnxTranslator = std::function<std::vector<OnnxValue>(const OnnxCall&)>;
using OnnxTranslators = std::map<std::string, OnnxTranslator>;

// Axes as an attribute or, since operator set `since`, as the second input.
[[nodiscard]] std::optional<Sizes> AxesOf(const OnnxCall& call, std::int64_t since);

// One function for every file of operators.
void AddLayers(OnnxTranslators& all);
void AddNorms(OnnxTranslators& all);
void AddActivations(OnnxTranslators& all);
void AddElements(OnnxTranslators& all);
void AddPools(OnnxTranslators& all);
void AddShapes(OnnxTranslators& all);
void AddParts(OnnxTranslators& all);
void AddPlaces(OnnxTranslators& all);
void AddReductions(OnnxTranslators& all);
void AddRecurrent(OnnxTranslators& all);
void AddResize(OnnxTranslators& all);

}  // namespace bitplan::onnx_import
