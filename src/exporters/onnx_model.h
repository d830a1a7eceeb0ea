// An ONNX model as plain values, and its bytes. The format is Protocol Buffers; of its wire format a model needs whole
// numbers, float32 numbers and byte strings, so that writing it takes no library.
// Source: onnx.proto3 of https://github.com/onnx/onnx (field numbers and types), protobuf.dev (wire format).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "models/onnx_types.h"

namespace bitplan::onnx_file {

using Type = OnnxElementType;

// A constant of the model.
struct Initializer {
  std::string name;
  Type type = Type::kFloat;
  std::vector<std::int64_t> dims;
  std::string bytes;  // little-endian, C order
};

struct Attribute {
  std::string name;
  std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>, std::vector<std::string>> value;
};

struct Operation {
  std::string type;                 // "Conv"
  std::vector<std::string> inputs;  // an empty name: left out
  std::vector<std::string> outputs;
  std::vector<Attribute> attributes;
  std::string name;
  std::string domain = {};  // of an operator that is not ONNX's own
};

// An input or an output of the model. A dimension has a size, or a name when every run chooses it.
struct Port {
  std::string name;
  Type type = Type::kFloat;
  std::vector<std::variant<std::int64_t, std::string>> dims;
};

struct Model {
  std::string name;
  std::int64_t opset = 0;
  std::int64_t ir_version = 0;
  std::vector<std::pair<std::string, std::int64_t>> other_opsets = {};  // domain and version
  std::vector<Port> inputs, outputs;
  std::vector<Operation> operations;  // each after those whose outputs it reads
  std::vector<Initializer> initializers;
  std::vector<std::pair<std::string, std::string>> metadata;
};

// Error(kData) above 2 GB, which no protobuf message may have.
[[nodiscard]] std::string Serialized(const Model& model);

}  // namespace bitplan::onnx_file
